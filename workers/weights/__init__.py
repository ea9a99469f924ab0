"""Reads published weights files into the layers of our backbones."""
