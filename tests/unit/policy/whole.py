"""The city's policy with every construct of the format in it once."""

from datasync.policy.loading import load
from tests.unit.policy.city import changed

WHOLE = changed(
    (
        "collections:\n",
        """\
collections:
  preferences:
    kind: document
    subject: user_id
    key: name
    fields:
      user_id: {type: string, tier: user-private, up: {edge: [pid]}}
      name:    {type: string, tier: edge-private}
      theme:   {type: string, tier: edge-private, merge: lww, up: {cloud: [gist]}}
      seen:    {type: int64,  tier: edge-private, merge: counter}
      when:    {type: timestamp, tier: user-private, merge: max, up: {edge: [hour]}}
      face:    {type: vector(64), up: {edge: [none]}}
      flag:    {type: bool, up: {cloud: [zero]}}
      tags:    {type: [string], tier: edge-private, merge: union}
    mobility: {hot: all, escrow: true}
""",
    ),
    (
        "  pid:",
        """\
  gist: {op: mask,     keep: 2, side: end,             from: edge-private, to: public}
  none: {op: drop,                                     from: user-private, to: edge-private}
  zero: {op: constant, value: 0,                       from: user-private, to: public}
  tens: {op: round,    decimals: -1,                   from: edge-private, to: public}
  dp:   {op: dp_sgd, unit: subject, epsilon: 4, delta: 1.0e-6, scope: model, from: edge-private, to: public}
  sign: {op: approve, scope: model, from: edge-private, to: public}
  pid:""",
    ),
    ("mobility: {hot: 24h", "retain: {device: 30d, edge: 90d, cloud: 2y}\n    mobility: {hot: 24h"),
    (
        "  - {id: D1,",
        "  - {id: R4, effect: allow, to: {worker: edge-router}, data: preferences, fields: [theme, tags],\n"
        "     where: [[theme, in, [dark, light]], [seen, exists, true]]}\n"
        "  - {id: D1,",
    ),
    (
        "handover:\n",
        """\
  roaming: opt_in
  withdraw: {stop: immediately, purge: 24h}
erasure: {shred: immediately, compact: 72h, models: {user-private: delete, edge-private: retrain, public: report}}
models: {label: join_of_inputs, lower_by: [dp]}
handover:
  - {id: H1, from: acme, to: borealis, data: trips, action: pseudonymise, max_tier: edge-private,
     fields: [gps, started, mode], purposes: [service.routing], requires: [roaming], retain: 24h, onward: false}
""",
    ),
    (
        "tests:\n",
        "tests:\n"
        "  - {name: borealis gets no speed, handover: {from: acme, to: borealis, data: trips},\n"
        "     expect: {fields: [gps, started, mode]}}\n",
    ),
)


def whole(*changes):
    """Return the policy with texts replaced, and without its tests, which changes would fail."""
    text = WHOLE
    for old, new in changes:
        assert old in text, f"the policy has no {old!r}"
        text = text.replace(old, new, 1)
    return load(text.partition("tests:\n")[0].encode(), name="city.yaml")
