//! `keygen`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Failure, Outcome, Ui};

/// Length of a cluster key.
const KEY_BYTES: usize = 32;

pub(crate) fn run(ui: &mut Ui<'_>) -> Outcome {
    let mut key = [0; KEY_BYTES];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut key)
        .map_err(|_| Failure("Error reading random data: the system gives none".to_owned()))?;
    ui.line(STANDARD.encode(key))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn each_key_is_new_and_has_32_bytes() {
        let (one, two) = (
            run("lictor keygen", "", &[]).out,
            run("lictor keygen", "", &[]).out,
        );

        assert_ne!(one, two);
        assert_eq!(STANDARD.decode(one.trim()).expect("base64").len(), KEY_BYTES);
    }
}
