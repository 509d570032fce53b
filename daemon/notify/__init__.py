"""Telling people and machines of events: [notify.NAME] in site.toml.

    config     the keys, and their rules
    messages   lines between the daemon and the child process
    relay      the daemon's end: hands events over, never waits, and makes events of what the child reports
    worker     the child: a bounded queue and a thread for each target, which retry
    senders    one notification by a command, HTTP or SMTP; one ping

All that waits for others is in the child: a name server that is slow, or a server that hangs, costs the
daemon nothing. Secrets go to the child through its pipe, and into no log, event or command line.
"""
