"""The author's side: the five steps, the context, and the library of services; standard library at module level."""
