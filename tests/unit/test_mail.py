"""Letters over a real SMTP server: encrypted, logged in, never forged, and with what became of each."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.mail import USER, MailServer
from pydantic import ValidationError

import broker.smtp
from broker.letters import Letter, LetterPutOff, LetterRefused, LogPostman, PostAway, is_address
from broker.settings import Settings
from broker.smtp import SmtpPostman
from storage.tables import utcnow

Make = Callable[..., MailServer]
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd on `none` and `tls`


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[Make]:
    made: list[MailServer] = []

    def make(security: str = "starttls", **changes: Any) -> MailServer:
        made.append(MailServer(tmp_path / f"mail{len(made)}", security, **changes).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()


def letter(to: str | None = "ines@acme.example", subject: str = "Hours", text: str = "12 h left\n") -> Letter:
    return Letter("award-spent/awd-1/900/psn-1", to, "psn-1", subject, text, utcnow())


def postman(server: MailServer, **changes: Any) -> SmtpPostman:
    return SmtpPostman(Settings(**{**server.settings, **changes}))


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_letter_arrives_under_each_security_with_a_login(mail: Make, security: str) -> None:
    server = mail(security)
    post = postman(server)
    assert post.check() == f"notices go to 127.0.0.1:{server.port} by {security} as {USER}"
    assert server.letters == []
    post.send(letter(subject="Heures épuisées", text="Il reste 12 h.\n.\nÀ bientôt\n"))
    post.send(letter())
    post.close()
    first, second = server.letters
    assert (first["From"], first["To"]) == ("calcul@region.example", "ines@acme.example")
    assert first["Subject"] == "Heures épuisées"
    assert first.get_content().splitlines() == ["Il reste 12 h.", ".", "À bientôt"]
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Message-ID"] == second["Message-ID"]
    assert str(first["Message-ID"]).endswith("@region.example>")
    assert server.who == [USER, USER], "once for the check, once for both letters"


def test_another_key_is_another_message_id() -> None:
    one, other = letter(), Letter("other", "a@b.example", "psn-1", "", "", utcnow())
    assert one.message_id("x") != other.message_id("x")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_an_unknown_authority_or_for_another_host_is_refused(mail: Make, security: str) -> None:
    server, stranger = mail(security), mail(security, certified_for="mail.example")
    with pytest.raises(PostAway, match="certificate verify failed"):
        postman(server, smtp_ca_file=None).check()
    with pytest.raises(PostAway, match="IP address mismatch"):
        postman(stranger).check()
    assert server.who == stranger.who == []


def test_a_server_without_starttls_gets_no_letter_in_clear(mail: Make) -> None:
    server = mail("none", logins=False)
    with pytest.raises(PostAway, match="STARTTLS"):
        postman(server, smtp_security="starttls").send(letter())
    assert server.letters == []


def test_a_wrong_password_is_said_and_never_shown(mail: Make, tmp_path: Path) -> None:
    server = mail()
    settings = server.settings
    for wrong in ("hunter2", "pass\u00e9"):
        settings["smtp_password_file"].write_text(wrong)
        with pytest.raises(PostAway, match=r"535|not plain ASCII") as refused:
            SmtpPostman(Settings(**settings)).check()
        assert wrong not in str(refused.value)
        assert refused.value.__cause__ is None
    with pytest.raises(PostAway, match="No such file"):
        SmtpPostman(Settings(**{**settings, "smtp_password_file": tmp_path / "gone"})).check()


def test_what_the_server_answers_decides_what_becomes_of_a_letter(mail: Make) -> None:
    server = mail(answers={"gone@acme.example": "550 no such\x1b user", "full@acme.example": "452 mailbox full"})
    post = postman(server)
    with pytest.raises(LetterRefused, match="it answered 550 no such user"):
        post.send(letter("gone@acme.example"))
    with pytest.raises(LetterPutOff, match="452 mailbox full"):
        post.send(letter("full@acme.example"))
    post.send(letter())
    assert len(server.letters) == 1
    server.on_letter = lambda _: "554 not this text"
    with pytest.raises(LetterRefused, match="554 not this text"):
        post.send(letter())
    server.on_letter = lambda _: "451 later"
    with pytest.raises(LetterPutOff, match="451 later"):
        post.send(letter())


@pytest.mark.parametrize(
    "to",
    ["a@b.example\r\nBcc: c@d.example", "a@b.example,c@d.example", "a b@c.example", "<a@b.example>", "a@", "", None],
)
def test_an_address_that_is_none_reaches_no_server(mail: Make, to: str | None) -> None:
    server = mail()
    with pytest.raises(LetterRefused, match="address"):
        postman(server).send(letter(to))
    assert server.who == []


def test_no_text_adds_a_header(mail: Make) -> None:
    server = mail()
    post = postman(server)
    post.send(letter(subject="x\r\nBcc: paul@echo.example\x1b[31m\u2028Y: z", text="Bcc: q\r\n\r\nhello\n"))
    post.close()
    (taken,) = server.letters
    assert taken["Bcc"] is None
    assert taken["Y"] is None
    assert taken["Subject"] == "x Bcc: paul@echo.example [31m Y: z"


def test_a_server_that_is_away_or_silent_is_given_up(mail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = mail()
    post = postman(server)
    server.stop()
    with pytest.raises(PostAway, match="refused"):
        post.send(letter())
    server.start()
    post.send(letter())
    post.close()
    monkeypatch.setattr(broker.smtp, "ANSWER_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(PostAway, match="timed out"):
            postman(server, smtp_port=silent.getsockname()[1]).send(letter())


def test_a_server_that_trickles_is_cut(mail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.smtp, "CONNECTION_S_MAX", 0.5)
    server = mail()
    ended = threading.Event()

    def trickle(listening: socket.socket) -> None:
        peer, _ = listening.accept()
        with peer:
            while not ended.wait(0.05):
                try:
                    peer.sendall(b"220-more\r\n")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        with pytest.raises(PostAway):
            postman(server, smtp_port=listening.getsockname()[1]).check()
        ended.set()
        thread.join()


def test_in_clear_only_to_this_machine(mail: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = mail("none")
    monkeypatch.setattr(socket.socket, "getpeername", lambda _: ("192.0.2.7", 25))
    with pytest.raises(PostAway, match=r"smtp_security none is for this machine only, and it is 192\.0\.2\.7"):
        postman(server).send(letter())
    monkeypatch.setattr(socket.socket, "getpeername", lambda _: ("fe80::1%eth0", 25, 0, 2))
    with pytest.raises(PostAway, match="an address that no mail server has"):
        postman(server).send(letter())
    assert (server.letters, server.who) == ([], [])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"smtp_host": "mail.example"}, "smtp_host needs mail_from"),
        ({"smtp_user": "broker"}, "smtp_user and smtp_password_file go together"),
        ({"smtp_password_file": "/x"}, "smtp_user and smtp_password_file go together"),
        ({"mail_from": "Region <a@b.example>"}, "mail_from must be one plain address"),
        ({"smtp_security": "ssl"}, "Input should be"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings(**wrong)


def test_without_a_mail_server_letters_go_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    post = LogPostman()
    post.send(letter(to=None, subject="Hours end"))
    assert "log only" in post.check()
    post.close()
    out = capsys.readouterr()
    assert "Hours end" in out.out + out.err


def test_addresses() -> None:
    assert is_address("ines.martin+calcul@acme.example")
    assert not is_address("a..b@acme.example")
    assert not is_address("a@acme..example")
