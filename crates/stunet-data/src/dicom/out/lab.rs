//! Colours as DICOM writes them.

/// A colour of a screen as CIE L*a*b* in three words, as `RecommendedDisplayCIELabValue` has it.
///
/// # Source
/// IEC 61966-2-1 (sRGB), with D65 adapted to D50 by Bradford's matrix; DICOM PS3.3, C.10.7.1.1 for the
/// words: L* from 0 to 100, a* and b* from -128 to 127, each over all of 16 bits.
pub(super) fn lab_of(rgb: [u8; 3]) -> [u16; 3] {
    /// X, Y, Z under D50 from linear red, green, blue.
    const XYZ: [[f64; 3]; 3] = [
        [0.436_074_7, 0.385_064_9, 0.143_080_4],
        [0.222_504_5, 0.716_878_6, 0.060_616_9],
        [0.013_932_2, 0.097_104_5, 0.714_173_3],
    ];
    const WHITE: [f64; 3] = [0.964_22, 1.0, 0.825_21];
    let linear = rgb.map(|v| match f64::from(v) / 255.0 {
        v if v <= 0.040_45 => v / 12.92,
        v => ((v + 0.055) / 1.055).powf(2.4),
    });
    let [x, y, z] = std::array::from_fn(|i| {
        let sum: f64 = XYZ[i].iter().zip(linear).map(|(a, b)| a * b).sum();
        match sum / WHITE[i] {
            t if t > 216.0 / 24389.0 => t.cbrt(),
            t => (24389.0 / 27.0 * t + 16.0) / 116.0,
        }
    });
    let word = |share: f64| (share.clamp(0.0, 1.0) * 65535.0).round() as u16;
    let signed = |v: f64| word((v + 128.0) / 255.0);
    [word((116.0 * y - 16.0) / 100.0), signed(500.0 * (x - y)), signed(200.0 * (y - z))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        // L*, a*, b* under D50 as ICC profiles of sRGB give them.
        let known = [
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 0, 0], [54.29, 80.81, 69.89]),
            ([0, 255, 0], [87.82, -79.29, 80.99]),
            ([0, 0, 255], [29.57, 68.30, -112.03]),
        ];
        for (rgb, [l, a, b]) in known {
            let [found_l, found_a, found_b] = lab_of(rgb).map(f64::from);
            let found = [
                found_l / 65535.0 * 100.0,
                found_a / 65535.0 * 255.0 - 128.0,
                found_b / 65535.0 * 255.0 - 128.0,
            ];
            for (found, expected) in found.into_iter().zip([l, a, b]) {
                assert!((found - expected).abs() < 0.05, "{rgb:?}: {found} {expected}");
            }
        }
    }
}
