"""Contract suites: laws of what plugs into mvnas, for whoever writes such a part. Each is a class to subclass in a test
file.
"""
