"""Ledgers that are broken on purpose, one mistake each: what a test of the books must find."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, update

from quotas import award_changes, award_ends, awards, corrections, holds, ledger, programmes, reclaims
from quotas.ledger import Done, Movement, Posting
from quotas.models import Account

Break = Callable[[pytest.MonkeyPatch], None]
_group: Any = ledger._Group


def a_settle_ignores_what_is_left(patch: pytest.MonkeyPatch) -> None:
    right = holds.settle

    def wrong(left: holds.HoldLeft, charge: int, contract_charge: int, *rest: Any, **more: Any) -> Posting:
        nothing = replace(left, award=replace(left.award, amount=0))
        return right(nothing, charge, contract_charge, *rest, **more)

    patch.setattr(holds, "settle", wrong)


def a_settle_forgets_its_overrun(patch: pytest.MonkeyPatch) -> None:
    right = holds.settle

    def wrong(*args: Any, **more: Any) -> Posting:
        posting = right(*args, **more)
        return replace(posting, movements=tuple(m for m in posting.movements if "overrun" not in m.kind))

    patch.setattr(holds, "settle", wrong)


def a_release_gives_back_too_much(patch: pytest.MonkeyPatch) -> None:
    right = holds.release

    def wrong(left: holds.HoldLeft, *rest: Any) -> Posting:
        posting = right(left, *rest)
        return replace(posting, movements=tuple(replace(m, amount=m.amount + 1) for m in posting.movements))

    patch.setattr(holds, "release", wrong)


def the_contracts_leg_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(holds, "_sides", lambda award, _contract: (("", award),))


def a_top_up_is_not_written(patch: pytest.MonkeyPatch) -> None:
    right = holds.top_up
    patch.setattr(holds, "top_up", lambda *args: replace(right(*args), top_ups={}))


def a_replay_is_moved_again(patch: pytest.MonkeyPatch) -> None:
    right = _group.decide

    def wrong(group: Any, posting: Posting) -> Any:
        outcome = right(group, posting)
        if outcome is Done.REPLAYED:
            for movement in posting.movements:
                group._balances[movement.debit_id] -= movement.amount
                group._balances[movement.credit_id] += movement.amount
            group._accepted.append(Posting(movements=()))
        return outcome

    patch.setattr(_group, "decide", wrong)


def a_reused_id_passes_for_a_replay(patch: pytest.MonkeyPatch) -> None:
    right = _group.decide

    def wrong(group: Any, posting: Posting) -> Any:
        outcome = right(group, posting)
        return Done.REPLAYED if isinstance(outcome, ledger.TransferReused) else outcome

    patch.setattr(_group, "decide", wrong)


def replays_are_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_group, "_standing_transfers", lambda _group, _ids: {})


def an_overdraft_is_allowed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_group, "_short", lambda _group, _posting: None)


def a_hold_is_overdrawn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_group, "_overdrawn", lambda _group, _posting: None)


def a_group_does_not_see_itself(patch: pytest.MonkeyPatch) -> None:
    right = _group._short

    def wrong(group: Any, posting: Posting) -> Any:
        now, group._balances = group._balances, group._before
        try:
            return right(group, posting)
        finally:
            group._balances = now

    patch.setattr(_group, "_short", wrong)


def a_draw_is_not_written(patch: pytest.MonkeyPatch) -> None:
    right = ledger.update_column

    def wrong(connection: Connection, column: Any, values: dict[str, int]) -> None:
        if column.name != "remaining":
            right(connection, column, values)

    patch.setattr(ledger, "update_column", wrong)


def a_contracts_draw_is_not_written(patch: pytest.MonkeyPatch) -> None:
    right = ledger.update_column

    def wrong(connection: Connection, column: Any, values: dict[str, int]) -> None:
        if column.name != "contract_remaining":
            right(connection, column, values)

    patch.setattr(ledger, "update_column", wrong)


def a_hash_forgets_the_amount(patch: pytest.MonkeyPatch) -> None:
    _hash_without(patch, amount=0)


def a_hash_forgets_the_details(patch: pytest.MonkeyPatch) -> None:
    _hash_without(patch, details=None)


def _hash_without(patch: pytest.MonkeyPatch, **left_out: Any) -> None:
    right = ledger.link_hash

    def wrong(previous: str, sequence: int, movement: Movement, at: Any) -> str:
        return right(previous, sequence, replace(movement, **left_out), at)

    patch.setattr(ledger, "link_hash", wrong)


def a_refund_is_not_capped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(corrections, "check_refundable", lambda _job_id, _now, _amount: None)


def a_refund_forgets_what_overrun_paid(patch: pytest.MonkeyPatch) -> None:
    right = corrections.refund

    def wrong(payer: Any, now: Any, *rest: Any) -> Any:
        return right(payer, replace(now, overrun=0), *rest)

    patch.setattr(corrections, "refund", wrong)


def an_adjustment_takes_what_is_not_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(corrections, "available_of", lambda _connection, _owner_id: 10**9)


def an_adjustment_forgets_refunds(patch: pytest.MonkeyPatch) -> None:
    right = corrections.booked
    patch.setattr(corrections, "booked", lambda *args: replace(right(*args), refunded=0))


def an_expiry_is_counted_twice(patch: pytest.MonkeyPatch) -> None:
    right = award_ends.move

    def wrong(session: Any, movement: Movement, at: Any) -> bool:
        moved = right(session, movement, at)
        taker = update(Account).where(Account.id == movement.credit_id)  # type: ignore[arg-type]
        session.execute(taker.values(balance=Account.balance + movement.amount))
        return moved

    patch.setattr(award_ends, "move", wrong)


def late_money_does_not_expire(patch: pytest.MonkeyPatch) -> None:
    right = award_ends.expire

    def wrong(session: Any, award: Any, at: Any) -> int:
        return 0 if award_ends.expired_credits(session, award.id) else right(session, award, at)

    patch.setattr(award_ends, "expire", wrong)


def a_transfer_credits_the_wrong_account(patch: pytest.MonkeyPatch) -> None:
    right = award_changes.move
    patch.setattr(award_changes, "move", lambda s, m, at: right(s, replace(m, credit_id="treasury:region"), at))


def a_transfer_takes_less(patch: pytest.MonkeyPatch) -> None:
    right = award_changes.move
    patch.setattr(award_changes, "move", lambda s, m, at: right(s, replace(m, amount=(m.amount + 1) // 2), at))


def a_supplement_brings_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(award_changes, "draw_from_budget", lambda *_: None)


def an_award_is_drawn_from_another_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(awards, "budget_for", lambda session, id_, _at: programmes.budgets_of(session, id_)[-1])


def a_reclaim_takes_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reclaims, "_share", lambda _notice, balances: balances.available)


def a_reclaim_comes_early(patch: pytest.MonkeyPatch) -> None:
    right = reclaims._locked

    def wrong(session: Any, wanted: Any) -> Any:
        notice = right(session, wanted)
        if notice is not None:
            notice.due_at = notice.noticed_at + (notice.due_at - notice.noticed_at) / 4
        return notice

    patch.setattr(reclaims, "_locked", wrong)


BROKEN: tuple[Break, ...] = (
    a_settle_ignores_what_is_left,
    a_settle_forgets_its_overrun,
    a_release_gives_back_too_much,
    the_contracts_leg_is_forgotten,
    a_top_up_is_not_written,
    a_replay_is_moved_again,
    a_reused_id_passes_for_a_replay,
    replays_are_not_seen,
    an_overdraft_is_allowed,
    a_hold_is_overdrawn,
    a_group_does_not_see_itself,
    a_draw_is_not_written,
    a_contracts_draw_is_not_written,
    a_hash_forgets_the_amount,
    a_hash_forgets_the_details,
    a_refund_is_not_capped,
    a_refund_forgets_what_overrun_paid,
    an_adjustment_takes_what_is_not_there,
    an_adjustment_forgets_refunds,
    an_expiry_is_counted_twice,
    late_money_does_not_expire,
    a_transfer_credits_the_wrong_account,
    a_transfer_takes_less,
    a_supplement_brings_nothing,
    an_award_is_drawn_from_another_budget,
    a_reclaim_takes_all,
    a_reclaim_comes_early,
)
