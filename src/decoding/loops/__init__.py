"""One decoding loop a module. Neighbours on the ladder differ by one idea: diff them to see it."""
