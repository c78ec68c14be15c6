"""The base classes of services from before release 1.0; MXNet is imported when one of them is made."""
