"""Encrypted volumes (LUKS): opened in a confined process of their own, which serves what is inside."""
