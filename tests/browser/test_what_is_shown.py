"""What the administrator sees of the node, and that it stays true while the page is open."""

from sqlalchemy import text

from datasync.domain.tiers import Tier
from datasync.store import policies
from datasync.store.models import State
from tests.browser.records import NOW_MS, attach, follow, hand_over, hear_of, register
from tests.unit.api.serving import POLICY

NOTHING = "\N{EN DASH}"


def facts(page):
    """The boxes at the top: term → what it says."""
    pairs = "[...document.querySelectorAll('#summary div')].map((fact) => [...fact.children].map((e) => e.textContent))"
    return dict(page.evaluate(pairs))


def test_the_node_and_its_policy_are_shown(page, node, show_node):
    show_node()
    assert page.evaluate("document.querySelector('h1').innerText") == "datasync acme/cbd"
    assert page.evaluate("document.title") == "acme/cbd \N{EN DASH} datasync"
    said = facts(page)
    assert (said["Place"], said["Operator"], said["Ready"]) == ("edge", "acme", "yes")
    assert (said["Policy"], said["Digest"]) == ("revision 3", node.policy().digest[:16])


def test_why_the_last_policy_was_refused_is_shown(page, node, show_node):
    show_node()
    assert facts(page)["Policy refused last"] == "none"
    with node.database.write() as tx:
        policies.refuse(tx, policies.Refusal("POLICY_REVISION_STALE", "revision 2 is not above 3", NOW_MS))
    page.wait_for_text("POLICY_REVISION_STALE")
    assert facts(page)["Policy refused last"] == "POLICY_REVISION_STALE, 31 Jan 2026, 22:53:20"


def test_what_keeps_the_node_from_serving_is_shown(page, node, show_node):
    node.not_ready = ["POLICY_MISSING", "the broker is away"]
    show_node()
    assert facts(page)["Ready"] == "no: POLICY_MISSING, the broker is away"


def test_devices_are_shown_with_their_attachment_their_epoch_and_what_waits(page, node, show_node):
    attach(node, "watch-1", incarnation=2, epoch=17)
    attach(node, "watch-2", edge=None, state="erased", mode=None)
    follow(node, "watch-1", 2)
    node.capture("watch-1", [{"mode": "bike"}] * 1_200)
    show_node()
    first, second = page.table("devices")
    assert first == {
        "Device": "watch-1",
        "State": "active",
        "Attached to": "acme/cbd",
        "Incarnation": "2",
        "Epoch": "17",
        "Mode": "full",
        "Policy": "2",
        "Rows waiting": "1,200",
        "Segments waiting": "1",
        "Since": "31 Jan 2026, 21:53:20",
    }
    assert (second["Attached to"], second["Mode"], second["Rows waiting"]) == (NOTHING, NOTHING, "0")


def test_edges_are_shown_with_their_load_and_how_many_devices_they_serve(page, node, show_node):
    attach(node, "watch-1", edge="borealis/mill")
    hear_of(node, "acme/docks", load=None, address=None)
    hear_of(node, "borealis/mill", load=0.5)
    follow(node, "borealis/mill", 3)
    hear_of(node, "acme/cloud", role="cloud")
    show_node()
    docks, mill = page.table("edges")
    assert (docks["Edge"], docks["Load"], docks["Address"], docks["Devices"]) == ("acme/docks", NOTHING, NOTHING, "0")
    assert (mill["Edge"], mill["Operator"], mill["Load"], mill["Devices"]) == ("borealis/mill", "borealis", "0.50", "1")
    assert (mill["Policy"], docks["Policy"]) == ("3", NOTHING)
    assert (mill["Address"], mill["Last heard of"]) == ("mqtt://10.0.0.7:1883", "31 Jan 2026, 22:53:20")


def test_handovers_are_shown_the_newest_first_with_how_long_they_froze_the_device(page, node, show_node):
    hand_over(node, 1)
    hand_over(node, 2, device="watch-2", role="target", peer=None, phase="frozen", planned=False, active_ms=None)
    show_node()
    newer, older = page.table("handovers")
    assert (newer["Device"], newer["Role here"], newer["Other edge"]) == ("watch-2", "target", NOTHING)
    assert (newer["Phase"], newer["Planned"], newer["Frozen for"]) == ("frozen", "no", NOTHING)
    assert (older["Device"], older["Phase"], older["Frozen for"]) == ("watch-1", "erased", "23 ms")
    assert (older["Epoch"], older["Rows"], older["Bytes"]) == ("3", "34,567", "1,234,567")


def test_workers_are_shown_with_whether_their_token_is_of_use(page, node, show_node):
    node.enrol("router", expires_ms=NOW_MS + 86_400_000)
    node.enrol("gone")
    show_node()
    gone, router = page.table("workers")
    assert (gone["Worker"], gone["In the policy"], gone["Valid"]) == ("gone", "no: reads nothing", "until revoked")
    assert (router["In the policy"], router["Valid"]) == ("yes", "until 1 Feb 2026, 22:53:20")


def test_models_are_shown_with_their_label_and_what_became_of_them(page, node, show_node):
    register(node, "1" * 32)
    register(node, "2" * 32, name="gone", label=Tier.EDGE_PRIVATE, state=State.DELETED, created_ms=NOW_MS + 1)
    show_node()
    gone, kept = page.table("models")
    assert (gone["Model"], gone["Label"], gone["State"]) == ("gone", "edge-private", "deleted")
    assert (kept["Model"], kept["Id"], kept["Label"]) == ("stride", "1" * 16, "public")
    assert (kept["State"], kept["Bytes"], kept["Streams erased"]) == ("current", "1,234", "0")


def test_of_a_long_list_the_page_says_that_it_shows_its_beginning(page, node, show_node):
    for number in range(101):
        attach(node, f"watch-{number:03}")
    show_node()
    assert len(page.table("devices")) == 100
    assert "Devices the first 100 of more" in page.shown()
    assert "Edges the first" not in page.shown()


def test_lists_without_anything_say_so(page, show_node):
    show_node()
    assert page.table("devices") == [{"Device": "none"}]
    assert page.table("handovers") == [{"Device": "none"}]


def test_the_page_follows_the_database_by_itself(page, node, api, show_node):
    attach(node, "watch-1")
    show_node()
    attach(node, "watch-1", state="frozen", edge="acme/docks", epoch=5)
    hand_over(node, 1, phase="frozen")
    node.not_ready = ["SHUTTING_DOWN"]
    api.run(node.activate_policy(POLICY.replace("revision: 3", "revision: 4").encode()))
    page.wait_for_text("SHUTTING_DOWN")
    (device,) = page.table("devices")
    assert (device["State"], device["Attached to"], device["Epoch"]) == ("frozen", "acme/docks", "5")
    assert [handover["Phase"] for handover in page.table("handovers")] == ["frozen"]
    assert facts(page)["Policy"] == "revision 4"
    assert [(p["Revision"], p["Active"]) for p in page.table("policies")] == [("4", "yes"), ("3", "no")]


def test_what_did_not_change_stays_selected_when_the_page_is_renewed(page, node, show_node):
    attach(node, "watch-1")
    show_node()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#devices tbody th'))")
    node.not_ready = ["SHUTTING_DOWN"]
    page.wait_for_text("SHUTTING_DOWN")
    assert page.evaluate("getSelection().toString()") == "watch-1"


def test_a_node_that_cannot_be_reached_is_said_to_be_and_what_was_known_stays_until_it_is_back(page, node, show_node):
    attach(node, "watch-1")
    show_node()
    as_of = page.evaluate("document.querySelector('#status').textContent")
    page.go_offline(True)
    page.wait_for_text("The node cannot be asked: it does not answer.")
    assert page.table("devices")[0]["Device"] == "watch-1"
    assert page.evaluate("document.querySelector('#status').textContent") == as_of
    page.go_offline(False)
    page.wait_until("document.querySelector('#trouble').textContent === ''")


def test_a_node_that_answers_with_an_error_is_quoted_and_asked_again(page, node, show_node):
    show_node()
    with node.database.write() as tx:
        tx.execute(text("DROP TABLE handovers"))
    page.wait_for_text("The node cannot be asked: ")
    assert page.evaluate("document.querySelector('#node').checkVisibility()")
