//! AWS Signature Version 4 for what is needed here: a POST to `/`, with all its headers signed.

use crate::secret::Secret;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// The keys of the function's role.
#[derive(Debug)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: Secret,
    /// Keys of a role come with one.
    pub session_token: Option<Secret>,
}

/// For what a signature is good: one service of one region.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// Signs: adds `x-amz-date`, `x-amz-security-token` where there is one, and `authorization` to the headers, which have
/// lower-case names and `host` among them.
pub fn sign(
    credentials: &Credentials,
    scope: Scope<'_>,
    now: SystemTime,
    headers: &mut Vec<(&'static str, String)>,
    body: &[u8],
) {
    let time = timestamp(now);
    let date: String = time.chars().take(8).collect();
    headers.push(("x-amz-date", time.clone()));
    if let Some(token) = &credentials.session_token {
        headers.push(("x-amz-security-token", token.expose().to_owned()));
    }
    headers.sort();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");

    let mut canonical = "POST\n/\n\n".to_owned();
    for (name, value) in headers.iter() {
        // Writing to a string cannot fail.
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(canonical, "\n{names}\n{}", hex(&Sha256::digest(body)));

    let Scope { region, service } = scope;
    let within = format!("{date}/{region}/{service}/aws4_request");
    let what = format!("AWS4-HMAC-SHA256\n{time}\n{within}\n{}", hex(&Sha256::digest(canonical)));
    let signature = hex(&hmac(&key(&credentials.secret_key, &date, scope), &what));
    let access_key = &credentials.access_key;
    headers.push((
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={access_key}/{within}, SignedHeaders={names}, Signature={signature}"),
    ));
}

/// The key of one day, region and service.
fn key(secret: &Secret, date: &str, scope: Scope<'_>) -> Vec<u8> {
    let first = format!("AWS4{}", secret.expose()).into_bytes();
    [date, scope.region, scope.service, "aws4_request"].iter().fold(first, |key, part| hmac(&key, part))
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    // A key of any length does.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// As in `20150830T123600Z`.
fn timestamp(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year; 400 years have the same days each time.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    // The published test suite of Signature Version 4 signs with these, at this time.
    const SCOPE: Scope<'_> = Scope { region: "us-east-1", service: "service" };
    const NOW: Duration = Duration::from_secs(1_440_938_160);

    fn credentials(session_token: Option<&str>) -> Credentials {
        Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").unwrap(),
            session_token: session_token.and_then(Secret::new),
        }
    }

    fn signed(
        credentials: &Credentials,
        scope: Scope<'_>,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Vec<(&'static str, String)> {
        let mut headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        sign(credentials, scope, SystemTime::UNIX_EPOCH + NOW, &mut headers, body.as_bytes());
        headers
    }

    fn authorization<'a>(headers: &'a [(&'static str, String)]) -> &'a str {
        &headers.iter().find(|(name, _)| *name == "authorization").unwrap().1
    }

    #[test]
    fn post_vanilla() {
        let headers = signed(&credentials(None), SCOPE, &[("host", "example.amazonaws.com")], "");
        assert_eq!(
            authorization(&headers),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        assert!(headers.contains(&("x-amz-date", "20150830T123600Z".to_owned())));
    }

    #[test]
    fn post_header_value_case() {
        let headers =
            signed(&credentials(None), SCOPE, &[("my-header1", " VALUE1 "), ("host", "example.amazonaws.com")], "");
        let plain =
            signed(&credentials(None), SCOPE, &[("host", "example.amazonaws.com"), ("my-header1", "VALUE1")], "");
        assert!(authorization(&headers).ends_with("cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"));
        assert_eq!(authorization(&headers), authorization(&plain));
    }

    #[test]
    fn post_x_www_form_urlencoded() {
        let headers = signed(
            &credentials(None),
            SCOPE,
            &[("content-type", "application/x-www-form-urlencoded"), ("host", "example.amazonaws.com")],
            "Param1=value1",
        );
        assert!(authorization(&headers).ends_with("ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"));
    }

    #[test]
    fn post_sts_header_before() {
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYR\
                     qTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9H\
                     FvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4\
                     rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        let headers = signed(&credentials(Some(token)), SCOPE, &[("host", "example.amazonaws.com")], "");
        assert!(authorization(&headers).contains("SignedHeaders=host;x-amz-date;x-amz-security-token, "));
        assert!(authorization(&headers).ends_with("85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"));
        assert!(headers.contains(&("x-amz-security-token", token.to_owned())));
    }

    #[test]
    fn the_key_of_the_documentation() {
        let scope = Scope { region: "us-east-1", service: "iam" };
        let key = key(&credentials(None).secret_key, "20150830", scope);
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn timestamps() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_709_164_800, "20240229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (1_735_689_600, "20250101T000000Z"),
            (4_107_542_400, "21000301T000000Z"),
            (253_402_300_799, "99991231T235959Z"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "19700101T000000Z");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown = format!("{:?}", credentials(Some("session")));
        assert!(!shown.contains("wJalr") && !shown.contains("session\""), "{shown}");
    }
}
