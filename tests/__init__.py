"""Tests of Farshore: unit, contract, sim, crash, interop, scenarios, tidy."""
