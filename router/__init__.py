"""The flow: record → batch → route → queue → delivery → acknowledgement → checkpoint.

Queues, retries, batching, counting and checkpoints exist here once, for every source and every sink.
"""
