"""`relay schema`: the JSON Schema of connectors.yaml, for editors."""

from relay.cli.common import print_json


def command() -> None:
    """Print the JSON Schema of connectors.yaml, for editors.

    An editor that speaks the YAML language server then completes keys and underlines wrong ones. Put this line at the top of the file:

    # yaml-language-server: $schema=connectors.schema.json
    """
    from relay.config.schema import schema

    print_json(schema())
