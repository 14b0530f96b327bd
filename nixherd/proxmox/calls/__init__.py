"""The API's calls that are used, typed: one module per part of the API, together the Client of `client.py`.

Nothing here speaks HTTP; each call goes through `_get`, `_post`, `_put` and `_delete`, and so through the guard.
Every method raises ApiError, and Refused where the policy says no.
"""
