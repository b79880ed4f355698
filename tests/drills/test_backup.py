"""The commands of docs/operations.md that back up Postgres and restore it."""

import os
import re
import subprocess
from pathlib import Path

from servers import postgres_program

from tests.drills.conftest import drill_site
from tests.support.kept import read_kept
from tests.support.provider import Provider
from tests.support.servers import Postgres
from tests.support.site import ROOT


def run_command(program: str, url: str, folder: Path) -> None:
    """Run the one command of the page that begins with `program`."""
    page = (ROOT / "docs" / "operations.md").read_text()
    [command] = re.findall(rf"^{program} .*$", page, re.MULTILINE)
    path = f"{postgres_program(program).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "DATABASE_URL": url}
    subprocess.run(command, shell=True, check=True, cwd=folder, env=env)


async def test_a_restored_site_has_it_all(
    postgres: Postgres, provider: Provider, tmp_path: Path
) -> None:
    """Dumped while the site runs; people sign in as before, and go on."""
    with drill_site(provider, postgres) as site:
        ann = site.users["ann"]
        async with site.chat(ann) as client:
            accepted = await client.chat("Keep this")
            await client.wait_end(accepted["run_id"])
        session_id = accepted["session_id"]
        kept = read_kept(site, ann, session_id)
        run_command("pg_dump", site.env["DATABASE_URL"], tmp_path)
    with postgres.database() as url:
        run_command("pg_restore", url, tmp_path)
        with drill_site(provider, postgres, DATABASE_URL=url) as restored:
            assert read_kept(restored, ann, session_id).texts == kept.texts
            assert restored.login(ann)
            async with restored.chat(ann) as client:
                accepted = await client.chat("And this?", session_id)
                end = await client.wait_end(accepted["run_id"])
                assert end["content"] == "You said: And this?"
