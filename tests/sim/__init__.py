"""The simulator: one virtual clock, disks, stores and a network, all from one seed."""
