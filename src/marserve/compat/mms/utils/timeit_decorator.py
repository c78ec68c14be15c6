"""``timeit``: prints how long a function takes."""

from ts.utils.timeit_decorator import timeit

__all__ = ["timeit"]
