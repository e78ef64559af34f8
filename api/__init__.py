"""The HTTP API: what people and programs ask a running daemon, over a unix socket unless told otherwise.

`address.py` says where, `listener.py` listens, `server.py` serves; `app.py` answers. What is needed to answer
is imported with the first connection: a daemon that nobody asks does not pay for it.
"""
