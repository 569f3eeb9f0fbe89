"""What a name in a page means."""

from __future__ import annotations

REFERENCE = "generated/reference/"
SPACES = ("holdfast", "maps", "sets", "testing", "errors", "recipes", "linalg", "plot")
# Pages that speak of holdfast alone
OURS = (
    "start",
    "guides/",
    "concepts/",
    "families/",
    "generated/gallery/",
    "generated/changes/",
)


def resolve(name, here, objects):
    """Return the full name of what is meant, or None.

    In the reference a bare name is first of all one of the same package. In pages of
    ours it has to mean one thing only; in tables of names it may be anybody's.
    """
    if "." in name:
        recipe = f"holdfast.recipes.{name.removeprefix('holdfast.')}"
        paths = (name, f"holdfast.{name}", recipe)
        return next((path for path in paths if path in objects), None)
    if here.startswith(REFERENCE):
        package = here.removeprefix(REFERENCE).partition("/")[0]
        found = meanings(name, [package, *SPACES], objects)
        return found[0] if found else None
    if here.startswith(OURS):
        # `symmetric` and `simplex` are torch's words too, and so are the recipes' names
        functions = ["linalg"] if "_" in name else []
        found = meanings(name, ["holdfast", "maps", "sets", *functions], objects)
        return found[0] if len(found) == 1 else None
    return None


def meanings(name, spaces, objects):
    paths = [f"holdfast.{space}.{name}" for space in spaces]
    paths = [path.replace("holdfast.holdfast", "holdfast") for path in paths]
    return [path for path in paths if path in objects]
