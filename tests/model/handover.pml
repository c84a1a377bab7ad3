/* The handover protocol as it is implemented, for SPIN: one device, EDGES edges, a cloud (registrar), TOKENS attaches.

   Read it beside datasync/handover/machine.py and whereabouts.py: each step names the function that it pictures.
   `python -m tests.model.run` checks it; docs/HANDOVER.md says what for.

   The network. A message is a bit: said once, it may arrive at any later time, any number of times, in any order, or
   never. That is loss, duplication, delay and reordering at their worst. A message is said in the very step after which
   its sender may say it (saying it later is a delay). Only a PREPARE arrives twice at most.

   Crashes. A turn is one step: its commit and what it says afterwards, so that dying before the commit is not to have
   taken the step, and dying after it loses the message. What an edge only remembers (gifts, preparations, timers,
   windows) decides when it says something again, never what is true; so here whatever may be said can be, a time that is
   over may be over at once, and a crash of an edge whose disk is kept is no step of its own. The device has its memory
   and its disk apart (`here` and `disk`). LOSSES=1: one edge loses its disk, once; what only it had may then be lost.

   Larger than the code, never smaller: the device moves whenever it likes, also to where it is (a wish, READY, REFUSED
   and REJECTED only say when); an edge activates when it likes (the hot set, a silent source); an edge may be told by one
   message what the code says in two.

   Left out, as the code has none of it: leases, escrow, recovery of a lost counter. Left out, though it has: verdicts
   between operators, consents, erasure by the subject, revocation, limits (epoch leaps, numbers of edges), verification
   of checkpoints (a row counts as signed when it arrives), streams that begin after an attach, a nonce that changes while
   its edge keeps its disk, and the registrar's REGISTERED, which only ends a repetition. */

#ifndef EDGES
#define EDGES 3
#endif
#ifndef TOKENS
#define TOKENS 3
#endif
#ifndef ROWS
#define ROWS 1
#endif
#ifndef PUBLIC
#define PUBLIC 0	/* which rows, as a mask, are public: safe only in the cloud; the others are edge-private */
#endif
#ifndef PREPARATIONS
#define PREPARATIONS 1
#endif
#ifndef LOSSES
#define LOSSES 0
#endif

#define BIT(n) (1 << (n))
#define LETTER(edge) (65 + (edge))
#define ROW(mask) ((mask) >> 1)	/* the number of the row of a mask with one bit, of up to three */
#define AT(token, edge) ((token) * EDGES + (edge))

/* datasync/handover/states.py */
#define UNKNOWN 0
#define PREPARED 1
#define CATCHING_UP 2
#define ACTIVE 3
#define FROZEN 4
#define HELD 5
#define ERASED 6

#define DETACHED 0
#define ATTACHING 1
#define ATTACHED 2

#if TOKENS == 2
#define PICK_TOKEN(can) if :: can(0) -> k = 0 :: can(1) -> k = 1 fi
#elif TOKENS == 3
#define PICK_TOKEN(can) if :: can(0) -> k = 0 :: can(1) -> k = 1 :: can(2) -> k = 2 fi
#elif TOKENS == 4
#define PICK_TOKEN(can) if :: can(0) -> k = 0 :: can(1) -> k = 1 :: can(2) -> k = 2 :: can(3) -> k = 3 fi
#endif
#if EDGES == 2
#define PICK_EDGE(can) if :: can(0) -> s = 0 :: can(1) -> s = 1 fi
#define ANY_EDGE(is) (is(0) || is(1))
#else
#define PICK_EDGE(can) if :: can(0) -> s = 0 :: can(1) -> s = 1 :: can(2) -> s = 2 fi
#define ANY_EDGE(is) (is(0) || is(1) || is(2))
#endif
#define PICK_ROW(mask) if :: ((mask) & 1) -> r = 1 :: ((mask) & 2) -> r = 2 :: ((mask) & 4) -> r = 4 fi
#if PREPARATIONS == 0
#define PICK_PREPARATION(can) if :: (false) -> h = 0 fi
#elif PREPARATIONS == 1
#define PICK_PREPARATION(can) if :: can(0) -> h = 0 fi
#else
#define PICK_PREPARATION(can) if :: can(0) -> h = 0 :: can(1) -> h = 1 fi
#endif

/* ---- attach tokens (parts.AttachToken), which also number the session keys: each move draws one ---- */
byte tokens;			/* how many the device signed */
byte t_epoch[TOKENS];
byte t_edge[TOKENS];
byte t_visits[TOKENS];		/* AttachToken.previous, a mask of edges */
byte t_since[TOKENS];		/* the least epoch of those visits */
byte t_keys[TOKENS];		/* SessionKeys.previous, a mask of session keys */

/* ---- the device (whereabouts.Whereabouts), in memory and on its disk ---- */
typedef Whereabouts {
	byte state;
	byte epoch;
	byte edge;
	byte token;
	byte visits;
	byte visit_epoch[EDGES];
	byte ring[EDGES]	/* KeyRing.by_edge */
}
Whereabouts here, disk;
byte captured;
byte freed;			/* rows that the device need not give to anybody any more (State.SAFE) */
bool settled;			/* it stays where it is, and its program records nothing more */
byte named;			/* edges that were ever named: B is named before C, as they differ in nothing else */

/* ---- each edge's account (machine.Account), its keys and its rows ---- */
byte st[EDGES];
byte known[EDGES];		/* an epoch */
byte served[EDGES];		/* a token, from 1; 0 is none */
byte froze[EDGES];		/* the token that froze it, from 1: it names Account.target; 0 is none */
byte pending[EDGES];
byte unreleased[EDGES];
byte handover[EDGES];		/* the preparation whose segments it takes, from 1 */
byte has[EDGES];		/* StreamRecord.have */
byte reads[EDGES];		/* those of them that it can decrypt */
byte adopted[EDGES];		/* session keys of which its vault keeps what they give (transfer.adopt) */
bit session[EDGES];		/* whether it keeps the session key of the token it served (accounts.load_keys) */
byte sealed_by[EDGES * ROWS];	/* for rows that it has and cannot read: the session key, from 1 */
byte waits[EDGES];		/* public rows that it owes the cloud (State.WAITING) */
byte safe[EDGES];		/* public rows that it knows the cloud to have (State.SAFE) */

/* ---- messages that were said ---- */
byte fence[TOKENS];		/* by token: to which edges */
byte coverage[TOKENS];		/* by token: the rows that the target said it has, in FENCE and SEGMENTS-ACK */
byte rows[TOKENS * EDGES];	/* by token and source: DELTA's rows, */
byte rows_safe[TOKENS * EDGES];	/* those of them that are said to be safe, */
byte rows_key[TOKENS * EDGES];	/* and the session key that they are sealed under, from 1 */
byte complete[TOKENS];		/* by token: which sources said so in a DELTA */
byte superseded[TOKENS];	/* by token: by which sources */
byte actives[TOKENS];		/* by token: to which edges */
byte active_cloud;		/* and of which tokens to the registrar */
byte releases[TOKENS];		/* by token: by which sources */
byte attached;			/* of which tokens */
byte uploads[TOKENS];		/* by token: rows */
byte told_durable, told_safe;	/* ACK and ATTACHED of the device's present epoch: rows */

/* ---- preparations (source._Preparation) and what they say ---- */
#if PREPARATIONS > 0
byte preparations;
byte p_to[PREPARATIONS], p_token[PREPARATIONS], p_rows[PREPARATIONS], p_arrived[PREPARATIONS];
#endif

/* ---- the cloud ---- */
byte cloud;			/* the public rows it has */
byte registered;		/* the epoch under which it registered the device */

#if LOSSES > 0
bit lost;
byte beacon[EDGES];		/* which beacon's nonce is good (challenge.Challenge): a lost disk makes another */
byte prepared_nonce[EDGES];	/* Account.nonce, 0 is none */
byte p_nonce[PREPARATIONS];
byte t_beacons[TOKENS];		/* the beacons with whose nonces the device signed it, */
byte t_nonce[TOKENS];		/* or the nonce of the preparation, 0 is none */
#else
#define lost 0
#endif

/* ---- what only the invariants know ---- */
byte seen[EDGES];		/* the highest epoch that ever had an effect there */
byte owner[TOKENS + 1];		/* by epoch: the edge that served it, from 1 */

inline claim(holds, number) {
	if
	:: (holds) -> skip
	:: else -> printf("I%d does not hold\n", number); assert(false)
	fi
}

/* =========================================== the device =========================================== */

inline commit() {	/* whereabouts.save, in the turn's transaction */
	disk.state = here.state; disk.epoch = here.epoch; disk.edge = here.edge; disk.token = here.token;
	disk.visits = here.visits;
	s = 0;
	do
	:: s < EDGES -> disk.visit_epoch[s] = here.visit_epoch[s]; disk.ring[s] = here.ring[s]; s++
	:: else -> break
	od
}

inline restart() {	/* whereabouts.load */
	here.state = disk.state; here.epoch = disk.epoch; here.edge = disk.edge; here.token = disk.token;
	here.visits = disk.visits;
	s = 0;
	do
	:: s < EDGES -> here.visit_epoch[s] = disk.visit_epoch[s]; here.ring[s] = disk.ring[s]; s++
	:: else -> break
	od;
	told_durable = 0; told_safe = 0
}

inline move(target) {	/* whereabouts.move; then DeviceNode._attach says ATTACH, which is the token's being there */
	k = tokens;
	if
	:: here.state == ATTACHING -> skip
	:: else -> here.visits = 0
	fi;
	if
	:: here.state != DETACHED ->
		here.visits = here.visits | BIT(here.edge);
		here.visit_epoch[here.edge] = here.epoch
	:: else -> skip
	fi;
	here.state = ATTACHING; here.epoch = here.epoch + 1; here.edge = target; here.token = k;
	t_epoch[k] = here.epoch; t_edge[k] = target; t_visits[k] = here.visits; t_since[k] = 0;
	s = 0;
	do
	:: s < EDGES ->
		if
		:: here.visits & BIT(s) ->
			if
			:: t_since[k] == 0 || here.visit_epoch[s] < t_since[k] -> t_since[k] = here.visit_epoch[s]
			:: else -> skip
			fi;
			if
			:: s != target -> t_keys[k] = t_keys[k] | here.ring[s]	/* Whereabouts.keys */
			:: else -> skip
			fi
		:: else -> here.visit_epoch[s] = 0
		fi;
		s++
	:: else -> break
	od;
#ifdef MUTANT_FORGET_KEYS
	here.ring[target] = BIT(k);
#else
	here.ring[target] = here.ring[target] | BIT(k);
#endif
	tokens = k + 1; named = named | BIT(target);
	told_durable = 0; told_safe = 0;
#if LOSSES > 0
	t_beacons[k] = BIT(beacon[target]);
#endif
	printf("device: signs epoch %d for %c, after visits %d\n", here.epoch, LETTER(target), here.visits)
}

#define MAY_NAME(edge) ((edge) < 2 || (named & BIT(1)))
#define MAY_MOVE(edge) (!settled && tokens < TOKENS && here.state != DETACHED && MAY_NAME(edge))
#define OF_NOW(token) (t_edge[token] == here.edge && t_epoch[token] == here.epoch && token < tokens)	/* _from_present */
#define CONFIRMS(token) ((attached & BIT(token)) && OF_NOW(token) && here.state == ATTACHING)
#ifdef MUTANT_FREE_AT_DURABLE
#define MAY_FREE (told_durable & captured & ~freed)
#else
#define MAY_FREE (((told_durable & ~PUBLIC) | told_safe) & captured & ~freed)	/* progress._advance */
#endif
#define READY_TO(h) (h < preparations && p_nonce[h] && here.state == ATTACHED && here.token + 1 == p_token[h] \
	&& !settled && tokens < TOKENS)

active proctype Device() {
	byte k, s, r, h;
end:	do
	:: d_step { here.state == DETACHED -> move(0); commit(); k = 0; s = 0 }	/* DeviceNode.begin */

	:: atomic { PICK_EDGE(MAY_MOVE); d_step {	/* DeviceNode._wish, _on_ready, _on_refused, _on_rejected; renew */
		h = s; move(h);
#ifndef MUTANT_SIGN_FIRST
		commit();
#endif
		k = 0; s = 0; h = 0 } }

#if LOSSES > 0
	:: atomic { PICK_PREPARATION(READY_TO); d_step {	/* DeviceNode._on_ready: with the nonce that it brings */
		r = h; h = p_to[r]; move(h); t_beacons[k] = 0; t_nonce[k] = p_nonce[r]; commit(); k = 0; s = 0; r = 0; h = 0 } }

	/* _on_rejected, NONCE_STALE: the same token once more, with the nonce of the edge's present beacon */
	:: d_step { here.state != DETACHED && !(t_beacons[here.token] & BIT(beacon[here.edge])) ->
		t_beacons[here.token] = t_beacons[here.token] | BIT(beacon[here.edge]) }
#endif
#ifdef MUTANT_SIGN_FIRST
	:: d_step { here.token != disk.token -> commit(); s = 0; printf("device: commits\n") }

	:: d_step { here.token != disk.token ->
		restart(); s = 0; printf("device: crashes, and is at epoch %d again\n", here.epoch) }
#endif
	:: atomic { PICK_TOKEN(CONFIRMS); d_step {	/* whereabouts.confirm; Uploading.resume */
		here.state = ATTACHED; here.ring[here.edge] = BIT(here.token);
		uploads[here.token] = uploads[here.token] | (captured & ~freed);
		commit(); k = 0; s = 0;
		printf("device: is attached to %c at epoch %d\n", LETTER(here.edge), here.epoch) } }

	:: d_step { !settled && captured != BIT(ROWS) - 1 && here.state != DETACHED ->	/* Captor.capture; Uploading.duties */
		captured = captured * 2 + 1;
		if
		:: here.state == ATTACHED -> uploads[here.token] = uploads[here.token] | (captured & ~freed)
		:: else -> skip
		fi;
		printf("device: has recorded rows %d\n", captured) }

	:: atomic { PICK_ROW(MAY_FREE); d_step {	/* progress.acknowledge, resume; Retention may delete it now */
		freed = freed | r; printf("device: frees row %d\n", ROW(r)); r = 0 } }

	:: d_step { !settled && here.state != DETACHED -> settled = true; printf("device: stays\n") }
	od
}

/* =========================================== the edges =========================================== */

#define TOKEN (served[self] - 1)
#define EPOCH_SERVED (t_epoch[served[self] - 1])

/* Whether an answer to a token's edge can matter still: it serves under that token, or forgot everything. */
#define HEEDS(token) (served[t_edge[token]] == (token) + 1 || lost)

inline say() {	/* what follows from the account as it is: machine.duties, Target._confirm, Source.feed, Verifying._settle */
	if
	:: st[self] == ACTIVE || st[self] == FROZEN || st[self] == HELD ->
		waits[self] = waits[self] | (reads[self] & PUBLIC & ~safe[self])
	:: else -> skip
	fi;
	if
	:: served[self] && pending[self] -> coverage[TOKEN] = coverage[TOKEN] | has[self]
	:: else -> skip
	fi;
	if
	:: served[self] && st[self] >= ACTIVE -> actives[TOKEN] = actives[TOKEN] | (unreleased[self] & ~pending[self])
	:: else -> skip
	fi;
	if
	:: st[self] == ACTIVE ->
		active_cloud = active_cloud | BIT(TOKEN);
		attached = attached | BIT(TOKEN);
		if
		:: here.edge == self && here.epoch == EPOCH_SERVED ->
			told_durable = told_durable | has[self]; told_safe = told_safe | (safe[self] & has[self])
		:: else -> skip
		fi
	:: st[self] == FROZEN && HEEDS(froze[self] - 1) ->
		rows[AT(froze[self] - 1, self)] = rows[AT(froze[self] - 1, self)] | reads[self];
		rows_safe[AT(froze[self] - 1, self)] = rows_safe[AT(froze[self] - 1, self)] | (reads[self] & safe[self]);
		rows_key[AT(froze[self] - 1, self)] = served[self]
	:: else -> skip
	fi
}

inline erase() {	/* Roster.erase: a public stream stays of which the cloud lacks something */
	reads[self] = reads[self] & waits[self] & ~safe[self];
	has[self] = reads[self]; waits[self] = reads[self]; safe[self] = 0;
#ifndef MUTANT_KEEP_KEYS
	adopted[self] = 0; session[self] = 0;
#endif
	r = 0;
	do
	:: r < ROWS -> sealed_by[self * ROWS + r] = 0; r++
	:: else -> break
	od
}

#ifdef MUTANT_NO_EDGE_ID
#define NAMES(edge, token) true
#else
#define NAMES(edge, token) (t_edge[token] == (edge))
#endif
#if LOSSES == 0 || defined(MUTANT_NO_NONCE)
#define NONCE_GOOD(edge, token) true
#else
#define NONCE_ANSWERS(edge, token) ((t_beacons[token] & BIT(beacon[edge])) \
	|| (t_nonce[token] && t_nonce[token] == prepared_nonce[edge]))
#ifdef MUTANT_ANY_EPOCH
#define NONCE_GOOD(edge, token) (known[edge] == 0 || NONCE_ANSWERS(edge, token))
#else
#define NONCE_GOOD(edge, token) NONCE_ANSWERS(edge, token)
#endif
#endif
#define ATTACHES(token) (token < tokens && NAMES(self, token) && t_epoch[token] > known[self] && NONCE_GOOD(self, token))

inline attach() {	/* machine.attach, Target.attach */
	printf("%c: is attached to at epoch %d, knew %d\n", LETTER(self), t_epoch[k], known[self]);
	claim(t_epoch[k] >= seen[self], 1);
	claim(owner[t_epoch[k]] == 0 || owner[t_epoch[k]] == self + 1, 2);
	seen[self] = t_epoch[k]; owner[t_epoch[k]] = self + 1;
	if
	:: served[self] ->	/* nobody heeds what was said under the token before */
		complete[TOKEN] = 0; superseded[TOKEN] = 0; releases[TOKEN] = 0; uploads[TOKEN] = 0; coverage[TOKEN] = 0;
		s = 0;
		do
		:: s < EDGES ->
			rows[AT(TOKEN, s)] = 0; rows_safe[AT(TOKEN, s)] = 0; rows_key[AT(TOKEN, s)] = 0; s++
		:: else -> break
		od
	:: else -> skip
	fi;
	st[self] = CATCHING_UP; known[self] = t_epoch[k]; served[self] = k + 1; froze[self] = 0; handover[self] = 0;
#if LOSSES > 0
	prepared_nonce[self] = 0;
#endif
#ifdef MUTANT_FORGET_SOURCES
	pending[self] = t_visits[k] & ~BIT(self);
#else
	pending[self] = pending[self] | (t_visits[k] & ~BIT(self));
#endif
	unreleased[self] = unreleased[self] | (t_visits[k] & ~BIT(self));
	fence[k] = fence[k] | pending[self];
	adopted[self] = adopted[self] | t_keys[k]; session[self] = 1;	/* transfer.adopt, accounts.save_keys */
	r = 0;
	do
	:: r < ROWS ->		/* transfer.drop_unreadable */
		if
		:: (has[self] & ~reads[self] & BIT(r)) && (adopted[self] & BIT(sealed_by[self * ROWS + r] - 1)) ->
			reads[self] = reads[self] | BIT(r)
		:: else -> skip
		fi;
		sealed_by[self * ROWS + r] = 0; r++
	:: else -> break
	od;
	has[self] = reads[self];
	say()
}

#define TO_SAME(edge, token) (froze[edge] && t_edge[froze[edge] - 1] == t_edge[token])
#define WAS_MISSED(edge, token) (froze[edge] == 0 && t_visits[token] && t_since[token] > known[edge])
#define IS_REASON(edge, token) ((t_visits[token] & BIT(edge)) || TO_SAME(edge, token) || WAS_MISSED(edge, token))
#define IS_AGAIN(edge, token) (t_epoch[token] == known[edge] && TO_SAME(edge, token))
#define IS_NEWER(edge, token) (IS_REASON(edge, token) && t_epoch[token] > known[edge])

#define FENCES(token) ((fence[token] & BIT(self)) && IS_NEWER(self, token))
#define OVERTAKEN(token) ((fence[token] & BIT(self)) && !IS_AGAIN(self, token) && !IS_NEWER(self, token) \
	&& HEEDS(token) && !(superseded[token] & BIT(self)))

inline freeze() {	/* machine.fence, Source._freeze */
	claim(lost || t_epoch[k] >= seen[self], 1);
	if
	:: t_epoch[k] > seen[self] -> seen[self] = t_epoch[k]
	:: else -> skip
	fi;
	known[self] = t_epoch[k]; froze[self] = k + 1; handover[self] = 0;
	pending[self] = pending[self] & ~BIT(t_edge[k]);
	if
	:: st[self] == UNKNOWN || st[self] == PREPARED || st[self] == ERASED -> st[self] = ERASED; erase()
	:: else -> st[self] = FROZEN
	fi
}

/* Source._give: complete is said once the target said that it has all that can be read here, and nothing is awaited. */
#define GAVE_ALL(token) ((fence[token] & BIT(self)) && IS_AGAIN(self, token) && froze[self] == token + 1 \
	&& pending[self] == 0 && (st[self] != FROZEN || !(reads[self] & ~coverage[token])) \
	&& HEEDS(token) && !(complete[token] & BIT(self)))

#define HOLDS(token) ((actives[token] & BIT(self)) && (IS_NEWER(self, token) \
	|| (t_epoch[token] == known[self] && st[self] == FROZEN) \
	|| (HEEDS(token) && !(releases[token] & BIT(self)) \
		&& !(t_epoch[token] == known[self] && st[self] != PREPARED && st[self] < FROZEN))))

inline target_active() {	/* Source._on_active, machine.target_active; EpochStale only counts as overtaken */
	if
	:: IS_NEWER(self, k) -> freeze()
	:: else -> skip
	fi;
	if
	:: t_epoch[k] == known[self] && st[self] == FROZEN ->
		st[self] = HELD; printf("%c: holds its copy\n", LETTER(self))
	:: else -> skip
	fi;
	if
	:: HEEDS(k) -> releases[k] = releases[k] | BIT(self)
	:: else -> skip
	fi;
	say()
}

#define AWAITS(source) (served[self] && st[self] >= CATCHING_UP && st[self] <= FROZEN && (unreleased[self] & BIT(source)))
#define IS_SUPERSEDED(source) (AWAITS(source) && (pending[self] & superseded[TOKEN] & BIT(source)))
#define IS_COMPLETE(source) (AWAITS(source) && (pending[self] & complete[TOKEN] & BIT(source)))
#define NEW_ROWS(source) ((rows[AT(TOKEN, source)] & ~has[self]) | (rows_safe[AT(TOKEN, source)] & has[self] & ~safe[self]))
#define GIVES(source) (AWAITS(source) && rows_key[AT(TOKEN, source)] \
	&& (adopted[self] & BIT(rows_key[AT(TOKEN, source)] - 1)) && NEW_ROWS(source))
#define IS_RELEASED(source) (served[self] && (unreleased[self] & releases[TOKEN] & BIT(source)))

#define UPLOADS(token) (served[self] && st[self] == ACTIVE && t_edge[token] == self && t_epoch[token] == EPOCH_SERVED \
	&& (uploads[token] & ~has[self]))

#if PREPARATIONS > 0
#define MAY_PREPARE(edge) (!settled && st[self] == ACTIVE && preparations < PREPARATIONS && edge != self && MAY_NAME(edge))
#define PREPARES(h) (h < preparations && p_to[h] == self && p_arrived[h] < 2 && t_epoch[p_token[h] - 1] >= known[self] \
	&& st[self] != ACTIVE && st[self] != CATCHING_UP)
#define SENDS(h) (h < preparations && handover[self] == h + 1 && (p_rows[h] & ~has[self]) \
	&& (st[self] == PREPARED || st[self] == FROZEN || st[self] == HELD))
#endif

active [EDGES] proctype Edge() {
	byte self = _pid - 1;
	byte k, s, r, h;
end:	do
	:: atomic { PICK_TOKEN(ATTACHES); d_step { attach(); k = 0; s = 0; r = 0 } }

	:: d_step { st[self] == CATCHING_UP ->	/* machine.catch_up, Target._advance */
		st[self] = ACTIVE; printf("%c: is active at epoch %d\n", LETTER(self), EPOCH_SERVED); say() }

	:: atomic { PICK_TOKEN(UPLOADS); d_step {	/* EdgeNode._on_upload; all that it lacks of one message */
		r = uploads[k] & ~has[self];
#ifdef MUTANT_ACK_FIRST
		if
		:: here.edge == self && here.epoch == EPOCH_SERVED -> told_durable = told_durable | r
		:: else -> skip
		fi;
		printf("%c: acknowledges rows %d and crashes before its commit\n", LETTER(self), r);
#else
		has[self] = has[self] | r; reads[self] = reads[self] | r;
		printf("%c: has rows %d from the device\n", LETTER(self), has[self]);
#endif
		say(); k = 0; r = 0 } }

	/* --- as a source --- */

	:: atomic { PICK_TOKEN(FENCES); d_step {	/* Source._on_fence */
		printf("%c: is fenced by the token of epoch %d, knew %d\n", LETTER(self), t_epoch[k], known[self]);
		freeze(); say(); k = 0; r = 0 } }

	:: atomic { PICK_TOKEN(OVERTAKEN); d_step {
		superseded[k] = superseded[k] | BIT(self);
		printf("%c: tells %c that epoch %d is superseded\n", LETTER(self), LETTER(t_edge[k]), t_epoch[k]); k = 0 } }

	:: atomic { PICK_TOKEN(GAVE_ALL); d_step {
		complete[k] = complete[k] | BIT(self);
		printf("%c: tells %c at epoch %d that it gave everything\n", LETTER(self), LETTER(t_edge[k]), t_epoch[k]); k = 0 } }

	:: atomic { PICK_TOKEN(HOLDS); d_step {
		printf("%c: hears that %c has everything at epoch %d\n", LETTER(self), LETTER(t_edge[k]), t_epoch[k]);
		target_active(); k = 0; r = 0 } }

	:: d_step { st[self] == HELD ->		/* machine.expire, Target._expire */
		st[self] = ERASED; handover[self] = 0; erase(); say(); r = 0;
#if LOSSES > 0
		prepared_nonce[self] = 0;
#endif
		printf("%c: erases the held copy\n", LETTER(self)) }

	/* --- as a target --- */

	:: atomic { PICK_EDGE(IS_SUPERSEDED); d_step {	/* Target._on_superseded, machine.received */
		pending[self] = pending[self] & ~BIT(s); say(); s = 0 } }

	:: atomic { PICK_EDGE(IS_COMPLETE); d_step {	/* Target._on_delta, machine.received */
		pending[self] = pending[self] & ~BIT(s);
		printf("%c: has everything of %c\n", LETTER(self), LETTER(s)); say(); s = 0 } }

	:: atomic { PICK_EDGE(GIVES); PICK_ROW(NEW_ROWS(s)); d_step {	/* Target._on_delta, transfer.arrive; SEGMENTS-ACK */
		if
		:: has[self] & r -> skip
		:: else -> has[self] = has[self] | r; reads[self] = reads[self] | r
		fi;
		safe[self] = safe[self] | (r & rows_safe[AT(TOKEN, s)]);
		coverage[TOKEN] = coverage[TOKEN] | has[self];
		printf("%c: has row %d from %c\n", LETTER(self), ROW(r), LETTER(s)); say(); s = 0; r = 0 } }

	:: atomic { PICK_EDGE(IS_RELEASED); d_step {	/* Target._on_release, machine.released */
		unreleased[self] = unreleased[self] & ~BIT(s); s = 0 } }

	/* --- the cloud has a public row --- */

	:: atomic { PICK_ROW(waits[self] & cloud); d_step {	/* Forwarding._on_stored */
		waits[self] = waits[self] & ~r; safe[self] = safe[self] | r; say(); r = 0 } }

	:: d_step { st[self] == ERASED && has[self] && !waits[self] ->	/* Roster.erase_what_was_left */
		erase(); r = 0; printf("%c: erases what was left\n", LETTER(self)) }

#if PREPARATIONS > 0
	/* --- a planned handover --- */

	:: atomic { PICK_EDGE(MAY_PREPARE); d_step {	/* Source.prepare; PREPARE and SEGMENTS, sealed under its session key */
		h = preparations;
		p_to[h] = s; p_token[h] = served[self]; p_rows[h] = reads[self];
		preparations = h + 1; named = named | BIT(s);
		printf("%c: prepares %c\n", LETTER(self), LETTER(s)); s = 0; h = 0 } }

	:: atomic { PICK_PREPARATION(PREPARES); d_step {	/* machine.prepare, Target._on_prepare */
		if
		:: st[self] == FROZEN || st[self] == HELD -> skip
		:: else -> st[self] = PREPARED
		fi;
		handover[self] = h + 1; p_arrived[h] = p_arrived[h] + 1;
#if LOSSES > 0
		prepared_nonce[self] = 1 + beacon[self] * PREPARATIONS + h; p_nonce[h] = prepared_nonce[self];
#endif
		say(); printf("%c: is prepared\n", LETTER(self)); h = 0 } }

	:: atomic { PICK_PREPARATION(SENDS); PICK_ROW(p_rows[h] & ~has[self]); d_step {	/* Target._on_segments */
		has[self] = has[self] | r; sealed_by[self * ROWS + ROW(r)] = p_token[h];
#ifdef MUTANT_READABLE_AHEAD
		reads[self] = reads[self] | r;
#endif
		say(); printf("%c: has row %d in advance\n", LETTER(self), ROW(r)); r = 0; h = 0 } }

	:: d_step { st[self] == PREPARED ->	/* machine.expire, Target._expire */
		st[self] = ERASED; handover[self] = 0; erase(); say(); r = 0;
#if LOSSES > 0
		prepared_nonce[self] = 0;
#endif
		printf("%c: erases what came in advance\n", LETTER(self)) }
#endif
#ifdef MUTANT_THAW
	:: d_step { st[self] == FROZEN -> st[self] = ACTIVE; printf("%c: thaws by a timer\n", LETTER(self)); say() }
#endif
#if LOSSES > 0
	:: d_step { !lost && st[self] != UNKNOWN ->
		st[self] = UNKNOWN; known[self] = 0; served[self] = 0; froze[self] = 0; pending[self] = 0; unreleased[self] = 0;
		waits[self] = 0; handover[self] = 0; erase(); adopted[self] = 0; session[self] = 0; prepared_nonce[self] = 0;
		beacon[self] = beacon[self] + 1; lost = 1; r = 0;
		printf("%c: loses its disk\n", LETTER(self)) }
#endif
	od
}

/* =========================================== the cloud =========================================== */

#define REGISTERS(token) ((active_cloud & BIT(token)) && t_epoch[token] > registered)
#define OWED(edge) waits[edge]
#if EDGES == 2
#define ALL_OWED (waits[0] | waits[1])
#else
#define ALL_OWED (waits[0] | waits[1] | waits[2])
#endif

active proctype Cloud() {
	byte k, r;
end:	do
	:: atomic { PICK_TOKEN(REGISTERS); d_step { registered = t_epoch[k]; k = 0 } }	/* CloudNode._on_active */
	:: atomic { PICK_ROW(ALL_OWED & ~cloud); d_step {	/* Forwarding.duties, CloudNode._on_forward */
		cloud = cloud | r; printf("cloud: has row %d\n", ROW(r)); r = 0 } }
	od
}

/* =========================================== the invariants =========================================== */

#define SERVES(edge) (st[edge] == CATCHING_UP || st[edge] == ACTIVE)

/* I1 whoever serves the device knows of no newer epoch. (And in attach and freeze: no older one has an effect.) */
#define OLD_ONE_SERVES(edge) (SERVES(edge) && (served[edge] == 0 || t_epoch[served[edge] - 1] != known[edge]))

/* I2 is in attach: no epoch is ever served by two edges, so at most one is active at the highest. */

/* I3 what the device let go is readable at an edge (private) or in the cloud (public). */
#define READS(edge) reads[edge]
#if EDGES == 2
#define READABLE (reads[0] | reads[1])
#else
#define READABLE (reads[0] | reads[1] | reads[2])
#endif
#define PRIVATE_LOST (!lost && (freed & ~PUBLIC & ~READABLE))
#define PUBLIC_LOST (freed & PUBLIC & ~cloud)

/* I4 an edge that the device did not attach to, or that gave up what it had, has no key and reads nothing;
   I5 nor does one that erased. What it owes the cloud of public rows stays readable until it is there. */
#define KNOWS(edge) (session[edge] || adopted[edge] || (reads[edge] & ~waits[edge] & ~safe[edge]))
#define CANDIDATE_KNOWS(edge) ((st[edge] == UNKNOWN || st[edge] == PREPARED) && KNOWS(edge))
#define ERASED_KNOWS(edge) (st[edge] == ERASED && KNOWS(edge))

/* In the end: the device stays, everything arrived, all times are over. */
#define IS_LEFT(e) (e != here.edge \
	&& (has[e] || session[e] || pending[e] || unreleased[e] || (st[e] != UNKNOWN && st[e] != ERASED)))
#define UNTOLD(edge) (unreleased[edge] || pending[edge])
#define SETTLED_WRONG (here.state != ATTACHED || st[here.edge] != ACTIVE || served[here.edge] != here.token + 1 \
	|| registered != here.epoch || ANY_EDGE(IS_LEFT) || ANY_EDGE(UNTOLD))
#define ROWS_WRONG (reads[here.edge] != captured || freed != captured || cloud != (captured & PUBLIC))

active proctype Invariants() {
end:	do
	:: atomic { ANY_EDGE(OLD_ONE_SERVES) -> printf("I1 does not hold: an edge serves though it knows of a newer epoch\n"); assert(false) }
	:: atomic { (PRIVATE_LOST || PUBLIC_LOST) -> printf("I3 does not hold: a row that the device freed is lost\n"); assert(false) }
	:: atomic { ANY_EDGE(CANDIDATE_KNOWS) -> printf("I4 does not hold: a candidate can read\n"); assert(false) }
	:: atomic { ANY_EDGE(ERASED_KNOWS) -> printf("I5 does not hold: an edge that erased can read\n"); assert(false) }
#if LOSSES == 0 && !defined(MUTANT_SIGN_FIRST)
	:: atomic { (timeout && SETTLED_WRONG) -> printf("I2 does not hold in the end: not one edge alone has the device\n"); assert(false) }
	:: atomic { (timeout && ROWS_WRONG) -> printf("I3 does not hold in the end: a row is not where the device is\n"); assert(false) }
#endif
	od
}
