"""Labels, configuration files and classes of modules."""
