"""`doctor`: the checks, the examination of a live session, and its report."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import (
    AuthenticationError,
    ConfigurationError,
    CreditsError,
    NotFoundError,
    QuotaError,
    RoomTokenError,
)
from ...playout.audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from ...runway.address import DEFAULT_BASE_URL
from ...runway.billing import USD_PER_CREDIT, credits_for
from ...runway.journal.writer import Journal, journal_folder
from ...runway.models import CreateRealtimeSession
from ...runway.requests import realtime_request
from ...transport.livekit_url import is_public
from ..calls import Request, preview, run, runway
from ..commands.account import ORGANIZATION
from ..commands.common import Avatar, Preset, confirm
from ..commands.sessions import PATH
from ..exits import ExitCode
from ..output import masked
from ..settings import STAGE_BASE_URL, Settings, settings_of
from .offline import LIVE_SECONDS, Check, avatar_request, offline_checks, package_versions
from .verdict import MOUTHPIECE, Verdict, judge

if TYPE_CHECKING:
    from .live import Findings

_MAX_DURATION, _MAX_DIRECT = 36, 24
"""Seconds of the two sessions, after which Runway ends them: at most $0.24 in all."""
_DEFAULT_PRESET = "influencer"


def doctor(
    ctx: typer.Context,
    live: Annotated[
        bool, typer.Option("--live", help="Also try a real session. Costs about $0.20; asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    preset: Preset = None,
    avatar: Avatar = None,
    speech: Annotated[
        Path | None,
        typer.Option(metavar="WAV", help="Say this, 16 bit, instead of a phrase without words."),
    ] = None,
    mouthpiece: Annotated[
        bool,
        typer.Option(
            "--mouthpiece",
            help="Experiment: ask it to repeat what it hears, word for word.",
        ),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the report of --live.")
    ] = None,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private-livekit-url",
            help="Invite the worker to a server that Runway cannot reach: for a simulator.",
        ),
    ] = False,
) -> None:
    """Check the set-up, at no cost; with --live also what the account's avatar worker can do.

    --avatar sees whether that avatar exists, and is READY. --live makes a session, joins its room
    as the user, says a phrase in both ways in which speech can reach a worker, compares what comes
    back, and ends the session. Then it invites a worker to a room of your own LiveKit server, if
    Runway can reach that, and does the same there: a token for that room alone goes to Runway. It
    says which options to give to AvatarSession, and writes a report that holds no secrets, for bug
    reports. Ctrl-C ends the session, too. Exit code 1 if a check failed, or no session gave a way
    of speaking.
    """
    settings = settings_of(ctx)
    if not live and (mouthpiece or speech or report or preset or allow_private):
        raise ConfigurationError("These options are for --live: pass it, too.")
    request = _live_request(preset, avatar, mouthpiece)
    from . import phrase  # with NumPy, which `runway-avatar --help` does without

    pcm = phrase.built_in() if speech is None else phrase.from_wav(speech)
    create = [Request("POST", PATH, body=request.wire())] if live else []
    about = [] if avatar is None else [avatar_request(avatar)]
    preview(settings, ORGANIZATION, *about, *create)
    checks = run(_check(settings, avatar))
    if not settings.output.as_json:
        _show_checks(settings, checks)
    failed = any(check.status == "fail" for check in checks)
    if not live:
        if settings.output.as_json:
            settings.output.json({"ok": not failed, "checks": [asdict(check) for check in checks]})
        raise typer.Exit(ExitCode.REFUSED if failed else ExitCode.OK)
    settings.runway_key()
    server = _livekit_server(settings, allow_private)
    _ask(settings, failed, yes, server is not None)
    path = _report_path(report)
    findings, direct = run(_examine(settings, request, pcm, server))
    url = settings.variable("LIVEKIT_URL")
    verdict = judge(findings, direct, mouthpiece=mouthpiece, livekit_url=url.value if url else None)
    told = _report(settings, checks, findings, direct, verdict, pcm, mouthpiece)
    _write(path, told)
    if settings.output.as_json:
        settings.output.json(told)
    else:
        _show_findings(settings, findings)
        if direct is not None:
            settings.output.line("\nInvited to a room of your own:")
            _show_findings(settings, direct)
        _show_verdict(settings, verdict, preset, avatar)
    settings.output.note(f"The report is in {path}.")
    if verdict.kind not in ("datastream", "track", "direct"):
        raise typer.Exit(ExitCode.REFUSED)


def _livekit_server(settings: Settings, allow_private: bool) -> tuple[str, str, str] | None:
    """URL, key and secret of the agents' server; None where no worker can be invited to it."""
    try:
        project = settings.livekit_project()
    except ConfigurationError:
        return None  # the checks have said why
    if not (allow_private or is_public(project.url)):
        return None
    return project.url, project.key, project.secret


def _live_request(
    preset: str | None, avatar: str | None, mouthpiece: bool
) -> CreateRealtimeSession:
    if preset is None and avatar is None:
        preset = _DEFAULT_PRESET
    personality = MOUTHPIECE if mouthpiece else None
    # If this process dies, Runway ends the session soon.
    return realtime_request(avatar, preset, _MAX_DURATION, personality, None, None)


async def _check(settings: Settings, avatar: str | None) -> list[Check]:
    with settings.output.busy("checking"):
        return await offline_checks(settings, avatar)


async def _examine(
    settings: Settings,
    request: CreateRealtimeSession,
    pcm: bytes,
    server: tuple[str, str, str] | None,
) -> tuple[Findings, Findings | None]:
    """Of a session in the room that Runway hosts, and of one in a room of the server's own."""
    from . import live, places  # with LiveKit's SDK

    findings, direct = live.Findings(), live.Findings()
    # For whoever comes after a doctor that was killed.
    journal = Journal(settings.runway_key(), settings.base_url, journal_folder())
    with closing(journal):
        async with runway(settings, journal=journal) as client:
            with settings.output.busy("examining a live session") as busy:

                def told(stage: str) -> None:
                    busy.update(f"examining a live session: {stage}")

                try:
                    await live.examine(
                        client, request, pcm, told=told, findings=findings, beside=True
                    )
                    if server is None or _is_at_fault(findings):
                        return findings, None
                    await live.examine(
                        client,
                        request.model_copy(update={"max_duration": _MAX_DIRECT}),
                        pcm,
                        place=partial(places.InvitedPlace, *server),
                        told=told,
                        findings=direct,
                    )
                except asyncio.CancelledError:
                    settings.output.note(_interrupted(direct if direct.session_id else findings))
                    raise
    return findings, direct


def _is_at_fault(findings: Findings) -> bool:
    """What went wrong would go wrong in another room as well."""
    return isinstance(
        findings.error, AuthenticationError | CreditsError | QuotaError | NotFoundError
    )


def _interrupted(findings: Findings) -> str:
    if findings.end is None:
        return "Interrupted before there was a session."
    if findings.end.confirmed:
        return "Interrupted; the session was ended."
    return f"It may still bill: runway-avatar sessions cancel {findings.session_id}"


def _ask(settings: Settings, failed: bool, yes: bool, invites: bool) -> None:
    usual, most = credits_for(LIVE_SECONDS), credits_for(_MAX_DURATION)
    if invites:
        usual, most = usual + credits_for(_MAX_DIRECT), most + credits_for(_MAX_DIRECT)
    settings.output.note(
        f"{'Two live sessions cost' if invites else 'A live session costs'} about {usual} credits "
        f"(${usual * USD_PER_CREDIT:.2f}), at most {most} (${most * USD_PER_CREDIT:.2f}), and "
        f"{3 if invites else 2} of the day's sessions: one more is made and ended at once, to see "
        "whether there is a place for it."
    )
    if invites:
        settings.output.note(
            "For the second, Runway gets the address of your LiveKit server, and a token for one "
            "room of it."
        )
    if failed:
        settings.output.note("Some checks have failed, so it may well fail, too.")
    confirm(settings, "Make it?", yes)


def _report_path(report: Path | None) -> Path:
    """Before money is spent: a place where the report can be written."""
    path = report or Path(f"runway-avatar-report-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--report: there is no folder {path.absolute().parent}.")
    return path


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ConfigurationError(f"--report {path}: {error.strerror}.") from None


def _report(
    settings: Settings,
    checks: list[Check],
    findings: Findings,
    direct: Findings | None,
    verdict: Verdict,
    pcm: bytes,
    mouthpiece: bool,
) -> dict[str, Any]:
    """What goes into a bug report: no secrets, no ids, no addresses of rooms."""
    report = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "runway": {DEFAULT_BASE_URL: "production", STAGE_BASE_URL: "staging"}.get(
            settings.base_url, "other"
        ),
        "checks": [asdict(check) for check in checks],
        "verdict": asdict(verdict),
        "mouthpiece": mouthpiece,
        "phrase_seconds": round(len(pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE, 2),
        **_told(findings),
        "direct": None if direct is None else _told(direct),
    }
    private = [*settings.output.secrets, findings.session_id]
    if direct is not None:
        private.append(direct.session_id)
    if report["runway"] == "other":
        private.append(settings.base_url)
    shown: dict[str, Any] = masked(report, [one for one in private if one])
    return shown


def _told(findings: Findings) -> dict[str, Any]:
    end = findings.end
    return {
        "stages": findings.stages,
        "worker_identity": findings.worker_identity,
        "statuses": findings.statuses,
        "second_session": findings.second_session,
        "tracks": findings.tracks,
        "picture_sizes": [list(size) for size in findings.sizes],
        "pictures_per_second": _rounded(findings.frame_rate),
        "spoke_unasked_seconds": _rounded(findings.spoke_unasked),
        "answers_clear_buffer": findings.answers_rpc,
        "deliveries": _deliveries(findings),
        "error": findings.error
        and {"kind": type(findings.error).__name__, "message": findings.error.message},
        "end": end
        and {
            "how": end.how,
            "status": end.status,
            "confirmed": end.confirmed,
            "end_call_obeyed": findings.end_call_obeyed,
            "billed_seconds": _rounded(end.billed_seconds),
            "estimated": end.estimated,
            "credits": credits_for(end.billed_seconds),
        },
    }


def _deliveries(findings: Findings) -> dict[str, Any]:
    return {
        kind: {"reaction": "not allowed", "missing": list(heard.missing)}
        if isinstance(heard, RoomTokenError)
        else {
            "reaction": heard.reaction,
            "latency": _rounded(heard.latency),
            "seconds": _rounded(heard.seconds),
        }
        for kind, heard in findings.deliveries.items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _show_checks(settings: Settings, checks: list[Check]) -> None:
    for check in checks:
        settings.output.line(f"{check.status:<4}  {check.name}: {check.detail}")
        if check.advice:
            settings.output.line(f"      -> {check.advice}")


def _show_findings(settings: Settings, findings: Findings) -> None:
    out = settings.output
    if findings.session_id:
        out.line(f"session {findings.session_id}")
    out.table(["stage", "seconds"], list(findings.stages.items()))
    for track in findings.tracks:
        out.line(f"{track['kind']} from {track['source']}: {track['codec']}")
    if findings.sizes:
        sizes = ", then ".join(f"{width}x{height}" for width, height in findings.sizes)
        out.line(f"pictures: {sizes}, {_rounded(findings.frame_rate)} a second")
    for kind, told in _deliveries(findings).items():
        detail = ", ".join(f"{k} {v}" for k, v in told.items() if k != "reaction" and v is not None)
        out.line(f"{kind}: {told['reaction']}" + (f" ({detail})" if detail else ""))
    if (end := findings.end) is not None:
        confirmed = "confirmed" if end.confirmed else "NOT CONFIRMED: it may still bill"
        out.line(
            f"ended: {end.how}, {end.status or 'status not settled'}, {confirmed}; "
            f"{end.billed_seconds:.0f} s, about {credits_for(end.billed_seconds)} credits"
        )
        if not end.confirmed:
            out.line(f"      -> runway-avatar sessions cancel {findings.session_id}")
    if findings.second_session:
        out.line(f"a second session beside it: {findings.second_session}")


def _show_verdict(
    settings: Settings, verdict: Verdict, preset: str | None, avatar: str | None
) -> None:
    out = settings.output
    out.line("")
    out.line(f"Verdict: {verdict.summary}")
    if verdict.options:
        chosen = {"avatar_id": avatar} if avatar else {"preset_id": preset or _DEFAULT_PRESET}
        given = ", ".join(f"{k}={v!r}" for k, v in {**chosen, **verdict.options}.items())
        out.line(f"  AvatarSession({given})")
    for advice in verdict.advice:
        out.line(f"  -> {advice}")
