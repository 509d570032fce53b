"""One process a site: config, wiring, control server, operations. Holds no logic of its own."""
