"""Contract suites: what the engine counts on in its ports, held by the real parts and by the simulator's."""
