"""logroute routes the logs of containers to where they are wanted.

The import package: the folders of the repository's top stand in it as symlinks, so that
``router/queue.py`` is imported as ``logroute.router.queue``.
"""

__version__ = "0.1.0"
