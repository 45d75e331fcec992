import schemathesis


@schemathesis.check
def refuses_only_what_is_taken(ctx, response, case):
    """A person that is valid by the schema gets 422 only because its apelido is taken."""
    if response.status_code != 422 or not case.meta.generation.mode.is_positive:
        return
    errors = response.json()["errors"]
    assert errors == [{"field": "apelido", "message": "is already taken"}], errors
