"""The verbs of the command line, one module each; a verb's module defines ``command``."""
