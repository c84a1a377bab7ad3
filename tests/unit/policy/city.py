"""The city's policy: the example of the format, without documents and without what moves between operators."""

from datasync.policy.loading import load

CITY = """\
schema: datasync.policy/v1
id: city-mobility
revision: 7
places: {device: user-private, edge: edge-private, cloud: public}
operators: [acme, borealis]
purposes: [service.routing, improve.train, research.stats]
transforms:
  pid:  {op: hmac,     key: subject, rotate: 30d,      from: user-private, to: edge-private}
  cell: {op: geohash,  precision: 5,                   from: user-private, to: edge-private}
  hour: {op: truncate, unit: 1h,                       from: user-private, to: edge-private}
  day:  {op: truncate, unit: 1d,                       from: edge-private, to: public}
  band: {op: bucket,   edges: [0, 10, 30, 60],         from: edge-private, to: public}
  area: {op: geohash,  precision: 3,                   from: edge-private, to: public}
collections:
  trips:
    kind: stream
    subject: user_id
    time: started
    meta: {region: public, garage: edge-private}
    fields:
      user_id: {type: string,    tier: user-private, up: {edge: [pid]}}
      gps:     {type: point,     tier: user-private, up: {edge: [cell], cloud: [cell, area]}}
      started: {type: timestamp, tier: user-private, up: {edge: [hour], cloud: [hour, day]}}
      speed:   {type: float32,   tier: edge-private, up: {cloud: [band]}}
      mode:    {type: string,    tier: public}
      note:    {type: string}
    raise:
      - {to: user-private, where: [[mode, eq, private_road]]}
    mobility: {hot: 24h, escrow: false}
workers:
  edge-router:   {place: edge,  operator: acme, kind: infer, clearance: edge-private, purposes: [service.routing],
                  region: cbd}
  edge-guest:    {place: edge,  operator: acme, kind: infer, clearance: public,       purposes: [service.routing]}
  cloud-trainer: {place: cloud, operator: acme, kind: train, clearance: public,       purposes: [improve.train]}
  watch-coach:   {place: device,                kind: infer, clearance: user-private, purposes: [service.routing]}
rules:
  - {id: R1, effect: allow, to: {worker: edge-router}, data: trips,
     fields: [user_id, gps, started, speed, mode],
     where: [[region, eq, $worker.region], [started, ge, now-7d]]}
  - {id: R2, effect: allow, to: {worker: cloud-trainer}, data: trips, fields: [gps, started, speed, mode]}
  - {id: R3, effect: allow, to: {place: device, kind: infer}, data: trips, fields: '*'}
  - {id: D1, effect: deny,  to: {kind: train}, data: trips, where: [[mode, eq, school_bus]]}
consent:
  basis: {service.routing: contract, improve.train: opt_in, research.stats: opt_in}
handover:
  - {id: H0, from: acme, to: acme, data: '*', action: move}
tests:
  - {name: router sees cells, ask: {worker: edge-router, data: trips, field: gps, purpose: service.routing},
     expect: {allow: [cell], by: [R1]}}
  - {name: no raw id in the cloud, ask: {worker: cloud-trainer, data: trips, field: user_id, purpose: improve.train},
     expect: {deny: NO_RULE_FIELD}}
  - {name: opt-out, ask: {worker: cloud-trainer, data: trips, field: speed, purpose: improve.train,
                       consent: {improve.train: false}},
     expect: {deny: NO_CONSENT}}
  - {name: school bus is not learned from, rows: [{mode: school_bus}, {mode: bike}],
     ask: {worker: cloud-trainer, data: trips, purpose: improve.train}, expect: {visible: [1], by: [R2, D1]}}
  - {name: nothing private in the cloud, never: {tier: [edge-private, user-private], place: cloud}}
"""


def city(*changes):
    """Return the city's policy with texts replaced: pairs of old and new."""
    return load(changed(*changes).encode(), name="city.yaml")


def untested(*changes):
    """Return the changed policy without its tests, which changes of the rules would fail."""
    return load(changed(*changes).partition("tests:\n")[0].encode(), name="city.yaml")


def changed(*changes):
    text = CITY
    for old, new in changes:
        assert old in text, f"the city's policy has no {old!r}"
        text = text.replace(old, new, 1)
    return text
