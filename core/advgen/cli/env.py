"""``gen env``."""

from __future__ import annotations

from advgen.cli.output import JsonFlag, say, say_json, table, to_stderr


def env(as_json: JsonFlag = False) -> None:
    """Show versions, devices, packages and plugins, and what to do about those that do not load."""
    from advgen.environment import describe_environment, environment_lines, remedies

    with to_stderr():
        report = describe_environment()
    if as_json:
        say_json(report)
        return
    packages = [
        [name, each["version"] or "-", each["status"], each["wanted"] + (f"  [{each['extra']}]" if each["extra"] else "")]
        for name, each in report["packages"].items()
    ]
    plugins = [[each["name"], each["status"], f"{each['distribution']} {each['version']}"] for each in report["plugins"]]
    say(*environment_lines(report))
    say("", *table(packages, ["package", "version", "status", "wanted"]))
    say("", *table(plugins, ["plugin", "status", "from"]))
    problems = remedies(report)
    extras = sorted({each["extra"] for each in report["packages"].values() if each["extra"] and each["status"] == "missing"})
    absent = f'; packages of extras that are missing: pip install "advgen[{",".join(extras)}]"' if extras else ""
    say("", *([f"remedy: {line}" for line in problems] or [f"everything that is installed loads{absent}"]))
