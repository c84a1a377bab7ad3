"""One tree of errors with stable codes.

Every error that a user, an operator or another program can meet is a :class:`DatasyncError`. Its ``code`` is
stable and goes into logs, metrics, problem details and exit messages; the class's docstring is its title; the
detail says what was wrong, where, and what would be right. Drivers' errors are wrapped where they arise.
"""

from typing import ClassVar


class DatasyncError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "ERROR"

    def __init__(self, detail: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.where = where
        self.fix = fix

    @property
    def title(self) -> str:
        """The class's docstring as one line, without its full stop."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{place}{self.detail}{fix} [{self.code}]"


class ConfigError(DatasyncError):
    """The configuration cannot be used."""

    code = "CONFIG_INVALID"


class EnrolmentInvalid(ConfigError):
    """What was scanned does not enrol a device."""

    code = "ENROLMENT_INVALID"


class EnrolmentDamaged(EnrolmentInvalid):
    """What was scanned is not whole."""

    code = "ENROLMENT_DAMAGED"


class EnrolmentTooLarge(EnrolmentInvalid):
    """What was scanned is longer than an enrolment is."""

    code = "ENROLMENT_TOO_LARGE"


class EnrolmentCodeWrong(EnrolmentInvalid):
    """The code is not the one that the enrolment is sealed under."""

    code = "ENROLMENT_CODE_WRONG"


class EnrolmentExpired(EnrolmentInvalid):
    """The enrolment was to be scanned earlier."""

    code = "ENROLMENT_EXPIRED"


class DependencyMissing(DatasyncError):
    """An optional package is not installed."""

    code = "DEPENDENCY_MISSING"


class PolicyError(DatasyncError):
    """The policy cannot be used."""

    code = "POLICY_INVALID"


class PolicyRevisionStale(PolicyError):
    """The policy's revision does not increase."""

    code = "POLICY_REVISION_STALE"


class PolicyRevisionConflict(PolicyError):
    """The policy's revision is the active one's, and its content is another."""

    code = "POLICY_REVISION_CONFLICT"


class PolicyDigestMismatch(PolicyError):
    """The policy is not the one that was checked or signed."""

    code = "POLICY_DIGEST_MISMATCH"


class PolicyKeyMissing(PolicyError):
    """The node holds no policy key to sign a policy with."""

    code = "POLICY_KEY_MISSING"


class PolicyMissing(PolicyError):
    """No policy is active, so everything is denied."""

    code = "POLICY_MISSING"


class RecordError(DatasyncError):
    """The rows do not fit their collection."""

    code = "ROWS_INVALID"

    def __init__(self, detail: str, *, where: str = "", fix: str = "", without_value: str = "") -> None:
        super().__init__(detail, where=where, fix=fix)
        self._without_value = without_value

    def hiding_value(self) -> "RecordError":
        """The same without the value that did not fit, for whoever is not who gave it."""
        return RecordError(self._without_value, where=self.where, fix=self.fix) if self._without_value else self


class CollectionUnknown(RecordError):
    """The policy has no such collection."""

    code = "COLLECTION_UNKNOWN"


class MessageError(DatasyncError):
    """A message was refused."""

    code = "MESSAGE_INVALID"


class MessageTooLarge(MessageError):
    """A message is over its size limit."""

    code = "MESSAGE_TOO_LARGE"


class SignatureInvalid(MessageError):
    """A signature does not verify."""

    code = "SIGNATURE_INVALID"


class SignerUntrusted(MessageError):
    """The signer's certificate is not from a trusted operator or not valid now."""

    code = "SIGNER_UNTRUSTED"


class SignerRevoked(SignerUntrusted):
    """The signer's certificate was revoked by its operator."""

    code = "SIGNER_REVOKED"


class RevocationStale(MessageError):
    """The revocation list is not newer than the one that is known."""

    code = "REVOCATION_STALE"


class SignerForeign(MessageError):
    """The signer may not speak on this topic."""

    code = "SIGNER_FOREIGN"


class MessageReplayed(MessageError):
    """A message was seen before."""

    code = "MESSAGE_REPLAYED"


class Undecipherable(MessageError):
    """A sealed message cannot be opened by this node."""

    code = "UNDECIPHERABLE"


class SegmentInvalid(MessageError):
    """A segment was refused."""

    code = "SEGMENT_INVALID"


class CheckpointInvalid(SegmentInvalid):
    """A checkpoint is malformed, or signs what the segments here are not."""

    code = "CHECKPOINT_INVALID"


class SegmentConflict(SegmentInvalid):
    """A segment claims sequence numbers that another segment already has."""

    code = "SEGMENT_CONFLICT"


class StreamForeign(SegmentInvalid):
    """A stream belongs to another device."""

    code = "STREAM_FOREIGN"


class StreamErased(SegmentInvalid):
    """The stream was erased; nothing of it is taken any more."""

    code = "STREAM_ERASED"


class TierForbidden(SegmentInvalid):
    """A segment is too private for this place."""

    code = "TIER_FORBIDDEN"


class HandoverError(DatasyncError):
    """A handover message was refused."""

    code = "HANDOVER_INVALID"


class EpochStale(HandoverError):
    """The attachment's epoch is not above the one already known."""

    code = "EPOCH_STALE"


class EpochLeap(HandoverError):
    """The attachment's epoch is implausibly far ahead."""

    code = "EPOCH_LEAP"


class NonceStale(HandoverError):
    """The attach answers no challenge of this edge."""

    code = "NONCE_STALE"


class NotAttached(HandoverError):
    """The device is not attached here."""

    code = "NOT_ATTACHED"


class EdgeFull(HandoverError):
    """The edge serves as many devices as it may."""

    code = "EDGE_FULL"


class EventUnexpected(HandoverError):
    """The state table lists no such event for this state."""

    code = "EVENT_UNEXPECTED"


class StoreError(DatasyncError):
    """The database failed."""

    code = "STORE_FAILED"


class StoreRefused(StoreError):
    """The database does not take this change, now or later; other store errors may pass."""

    code = "STORE_REFUSED"


class SchemaOutdated(StoreError):
    """The database's schema is not the one that this version needs."""

    code = "SCHEMA_OUTDATED"


class KeyUnavailable(DatasyncError):
    """A data key is missing or cannot be unwrapped."""

    code = "KEY_UNAVAILABLE"


class BodyDamaged(DatasyncError):
    """A stored segment's body does not open with its key."""

    code = "BODY_DAMAGED"


class NodeStopped(DatasyncError):
    """The node is not running."""

    code = "NODE_STOPPED"


class NodeFailed(DatasyncError):
    """The node failed on an input, and dropped it."""

    code = "NODE_FAILED"


class LinkError(DatasyncError):
    """The connection to a broker failed."""

    code = "LINK_FAILED"


class PeerRefused(LinkError):
    """The other end of a connection is not who was meant, or does not take this end's certificate."""

    code = "PEER_REFUSED"


class SubscriptionRefused(LinkError):
    """A broker refused a subscription."""

    code = "SUBSCRIPTION_REFUSED"


class RequestError(DatasyncError):
    """The request cannot be served."""

    code = "REQUEST_INVALID"


class Unauthenticated(RequestError):
    """The request carries no valid token."""

    code = "UNAUTHENTICATED"


class CertificateRefused(Unauthenticated):
    """The client's certificate is not from a trusted operator or not valid now."""

    code = "CERTIFICATE_REFUSED"


class CertificateRevoked(CertificateRefused):
    """The client's certificate was revoked by its operator."""

    code = "CERTIFICATE_REVOKED"


class CredentialsDiffer(Unauthenticated):
    """The token and the client's certificate are not the same caller's."""

    code = "CREDENTIALS_DIFFER"


class Forbidden(RequestError):
    """The token does not allow this."""

    code = "FORBIDDEN"


class CertificateForeign(Forbidden):
    """The client's certificate is not for what it is used for."""

    code = "CERTIFICATE_FOREIGN"


class PurposeForbidden(Forbidden):
    """The token is for other purposes."""

    code = "PURPOSE_FORBIDDEN"


class ConsentForeign(RequestError):
    """Only the subject's own device may say what the subject allows."""

    code = "CONSENT_FOREIGN"


class ErasureForeign(RequestError):
    """Only the subject's own device may do this with its streams."""

    code = "ERASURE_FOREIGN"


class ViewUnread(RequestError):
    """The worker was shown nothing of a view that it names."""

    code = "VIEW_UNREAD"


class ModelErased(RequestError):
    """The model was trained on what was erased, so that it may not be kept."""

    code = "MODEL_ERASED"


class ModelGone(RequestError):
    """The model was deleted."""

    code = "MODEL_GONE"


class ModelsTooMany(RequestError):
    """As many models of this worker are kept as may be."""

    code = "MODELS_TOO_MANY"


class NotFound(RequestError):
    """There is no such thing here."""

    code = "NOT_FOUND"


class Conflict(RequestError):
    """It exists already."""

    code = "CONFLICT"


class Busy(RequestError):
    """The node serves as many requests of this kind as it can."""

    code = "BUSY"


class AccessDenied(DatasyncError):
    """The policy denies it."""

    code = "ACCESS_DENIED"

    def __init__(self, detail: str, *, reason: str, where: str = "", fix: str = "") -> None:
        super().__init__(detail, where=where, fix=fix)
        self.reason = reason
        """The decision's code: DENIED_BY, NO_RULE, NO_RULE_FIELD, NO_READ_UP, NO_PATH, NO_PURPOSE, ..."""


class LogInvalid(DatasyncError):
    """A line of the decision log cannot be read."""

    code = "LOG_INVALID"


class LearningError(DatasyncError):
    """The model cannot be trained or used on this data."""

    code = "LEARNING_INVALID"
