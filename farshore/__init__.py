"""The one name that is installed: it holds the other packages, and starts every process with them."""
