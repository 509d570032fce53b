"""Figures for Prometheus: `metrics = "HOST:PORT"` in site.toml.

    snapshot   what a scrape is made of, from a running site, a slice of groups at a time
    source     the daemon's end: a child process asks for a snapshot by its pipe
    exposition a snapshot in Prometheus' terms (prometheus-client)
    server     the child: answers scrapes over HTTP, and asks for one snapshot for all that come at once

The daemon takes no connection of a scraper, and makes no text: a slow or hostile scraper costs it nothing.
"""
