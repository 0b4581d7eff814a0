//! Colours.

use std::fmt;
use std::str::FromStr;

/// Red, green, blue (sRGB) and opacity, 0 to 255; not premultiplied.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rgba {
    pub r: u8,
    pub g: u8,
    pub b: u8,
    pub a: u8,
}

/// That a text is no colour.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no colour; expected #rrggbb or #rrggbbaa")]
pub struct ColourError(String);

impl Rgba {
    pub const WHITE: Self = Self::rgb(255, 255, 255);
    pub const BLACK: Self = Self::rgb(0, 0, 0);

    pub const fn rgb(r: u8, g: u8, b: u8) -> Self {
        Self { r, g, b, a: 255 }
    }

    /// The same colour with an opacity from 0 to 1.
    #[must_use]
    pub fn with_alpha(self, alpha: f32) -> Self {
        Self { a: (alpha.clamp(0.0, 1.0) * 255.0).round() as u8, ..self }
    }

    /// Red, green and blue multiplied by the opacity, then the opacity.
    pub fn premultiplied(self) -> [u8; 4] {
        let scale = |c: u8| div255(u32::from(c) * u32::from(self.a));
        [scale(self.r), scale(self.g), scale(self.b), self.a]
    }

    /// Relative luminance after WCAG 2, 0 to 1.
    pub fn luminance(self) -> f32 {
        let linear = |c: u8| {
            let c = f32::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.r) + 0.7152 * linear(self.g) + 0.0722 * linear(self.b)
    }

    /// Black or white, whichever has more contrast on this colour.
    #[must_use]
    pub fn ink(self) -> Self {
        // Contrast with black is (L + 0.05) / 0.05, with white 1.05 / (L + 0.05); they are equal at 0.179.
        if self.luminance() > 0.179 { Self::BLACK } else { Self::WHITE }
    }
}

impl FromStr for Rgba {
    type Err = ColourError;

    fn from_str(text: &str) -> Result<Self, ColourError> {
        let error = || ColourError(text.chars().take(40).collect());
        let digits = text.strip_prefix('#').ok_or_else(error)?;
        if !matches!(digits.len(), 6 | 8) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let number = u32::from_str_radix(digits, 16).map_err(|_| error())?;
        let [r, g, b, a] = if digits.len() == 8 { number } else { number << 8 | 0xff }.to_be_bytes();
        Ok(Self { r, g, b, a })
    }
}

impl fmt::Display for Rgba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { r, g, b, a } = self;
        write!(f, "#{r:02x}{g:02x}{b:02x}")?;
        if *a == 255 { Ok(()) } else { write!(f, "{a:02x}") }
    }
}

/// `value / 255`, rounded, for values up to 255².
pub(super) fn div255(value: u32) -> u8 {
    let value = value + 128;
    ((value + (value >> 8)) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colours_read_and_print() {
        assert_eq!("#E69F00".parse(), Ok(Rgba::rgb(230, 159, 0)));
        assert_eq!("#01020304".parse(), Ok(Rgba { r: 1, g: 2, b: 3, a: 4 }));
        assert_eq!(Rgba::rgb(230, 159, 0).to_string(), "#e69f00");
        for text in ["", "#", "red", "#12345", "#1234567", "#+12345", "#12345g", "#ééé", &"#".repeat(99)] {
            let error = text.parse::<Rgba>().unwrap_err().to_string();
            assert!(error.contains("#rrggbb") && error.len() < 120, "{error}");
        }
    }

    #[test]
    fn ink_has_the_better_contrast() {
        assert_eq!(Rgba::rgb(240, 228, 66).ink(), Rgba::BLACK);
        assert_eq!(Rgba::rgb(0, 70, 120).ink(), Rgba::WHITE);
    }

    proptest! {
        #[test]
        fn every_colour_survives_printing(r: u8, g: u8, b: u8, a: u8) {
            let colour = Rgba { r, g, b, a };
            prop_assert_eq!(colour.to_string().parse(), Ok(colour));
            let [pr, pg, pb, pa] = colour.premultiplied();
            prop_assert!(pr <= pa && pg <= pa && pb <= pa);
        }

        #[test]
        fn division_is_rounded(value in 0_u32..=255 * 255) {
            prop_assert_eq!(u32::from(div255(value)), (value + 127) / 255);
        }
    }
}
