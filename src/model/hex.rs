//! Bytes as hex digits, and back.

/// Two lowercase digits for each byte.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]));
    digits.collect()
}

/// The bytes of a text of hex digits, lowercase or uppercase; `None` if it is anything else.
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_of_bytes_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        let digits = encode_hex(&all);
        assert!(digits.starts_with("000102") && digits.ends_with("fdfeff"));
        assert_eq!(decode_hex(&digits), Some(all.clone()));
        assert_eq!(decode_hex(&digits.to_uppercase()), Some(all));
        assert_eq!(decode_hex(""), Some(Vec::new()));
    }

    #[test]
    fn text_that_is_not_hex_is_refused() {
        for text in ["0", "0g", "+1", " 1", "0x10", "ab c", "é1"] {
            assert_eq!(decode_hex(text), None, "{text:?}");
        }
    }
}
