"""BLAKE2b, as `hashlib` has it, but without what that imports: OpenSSL, which little else may need.

To load that takes 6 ms and a megabyte, and `hashlib` takes this one from the same place.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # another Python than CPython
    from hashlib import blake2b

__all__ = ["blake2b"]
