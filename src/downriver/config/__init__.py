"""downriver.yml → frozen values, with every mistake at once.

How it goes: `project` finds the file → `document` reads it into a tree whose every node knows its line
and column → `typed` turns nodes into plain values as the pydantic models want them, with the
references of `references` resolved → `validate` has pydantic judge them and says each complaint at its
place → `load` puts the parts together and looks across them. `schema` tells editors the same.

Nothing vendor-specific stands here: the kinds of sources and connectors bring their own models.
"""
