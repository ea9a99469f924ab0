"""Keeps whole files and small records where every machine of a cluster reads them: an S3 bucket or a shared folder."""
