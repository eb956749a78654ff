"""The command line: `app` parses, the other modules do what has no room of its own. Nothing heavy on import."""
