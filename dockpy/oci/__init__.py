"""The OCI's and docker's documents as frozen values, to JSON and back; no effects.

Every `from_json` answers a value or raises InvalidParameter with one sentence that names the field.
Unknown fields are ignored when read (as the image specification asks) and never written.
"""
