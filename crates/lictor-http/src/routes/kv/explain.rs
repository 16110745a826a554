//! What a write of a key did, or why it did not, as headers for clients that ask by `?explain` or `X-Lictor-Explain`.

use hyper::header::{HeaderName, HeaderValue};
use lictor_state::{Explained, Refused};

use crate::reply::Reply;

const X_MODIFY_INDEX: HeaderName = HeaderName::from_static("x-lictor-modify-index");
const X_LOCK_INDEX: HeaderName = HeaderName::from_static("x-lictor-lock-index");
const X_REFUSED: HeaderName = HeaderName::from_static("x-lictor-refused");

/// The answer that Consul gives, and the headers.
pub(super) fn reply(explained: &Explained) -> Reply {
    let mut reply = Reply::bool(explained.done);
    if let Some(index) = explained.modify_index {
        reply = reply.with_header(X_MODIFY_INDEX, HeaderValue::from(index.0));
    }
    if let Some(index) = explained.lock_index {
        reply = reply.with_header(X_LOCK_INDEX, HeaderValue::from(index));
    }
    // A session is a uuid as its client wrote it.
    if let Some(refused) = &explained.refused
        && let Ok(value) = HeaderValue::from_str(&reason(refused))
    {
        reply = reply.with_header(X_REFUSED, value);
    }
    reply
}

fn reason(refused: &Refused) -> String {
    match refused {
        Refused::Held { session } => format!("held; session={session}"),
        Refused::NotHeld => "not-held".to_owned(),
        Refused::LockDelay { remaining_ms } => {
            // Rounded up, so that it is over when the client comes back.
            let tenths = remaining_ms.div_ceil(100);
            format!("lock-delay; remaining={}.{}s", tenths / 10, tenths % 10)
        }
        Refused::Index { modify_index } => format!("index; modify-index={modify_index}"),
        Refused::Queued { waiting } => format!("queued; waiting={waiting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_delay_is_rounded_up_to_a_tenth() {
        for (remaining_ms, shown) in [
            (12_400, "lock-delay; remaining=12.4s"),
            (12_301, "lock-delay; remaining=12.4s"),
            (1, "lock-delay; remaining=0.1s"),
            (0, "lock-delay; remaining=0.0s"),
        ] {
            assert_eq!(reason(&Refused::LockDelay { remaining_ms }), shown);
        }
    }
}
