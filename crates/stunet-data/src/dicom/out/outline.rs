//! Outlines of a mask in a plane: closed polygons, holes cut in by a channel.
//!
//! A polygon runs between the centres of voxels inside and outside, a hundredth of a voxel nearer to
//! those inside ([`OFFSET`]): who asks which centres lie in it, and who rounds it to whole voxels and
//! fills it with its border (rt-utils), get back exactly the voxels of the mask.
//!
//! Voxels that touch at a corner only are apart. A hole is joined to what lies around it by two equal
//! lines, one there and one back, as PS3.3 C.8.8.6.3 has it for `CLOSED_PLANAR`: readers that take the
//! union of a plane's polygons see the hole as well as those that count how often a point is enclosed.

/// How far a polygon lies from the centres of the voxels inside, in voxels.
const OFFSET: f64 = 0.49;
/// How far beside the centres a channel runs, in voxels: no centre lies on it, and rounded it is in their
/// column.
const BESIDE: f64 = 0.004;

/// A point of a plane: column and row, in voxels.
pub(super) type Point = [f64; 2];

/// A mask of a plane, rows one after the other.
struct Mask<'a> {
    inside: &'a [bool],
    columns: i64,
    rows: i64,
}

/// A side of a voxel inside, across which it is outside. In this order a walk with the inside on its
/// right passes the sides of a lone voxel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Top,
    Right,
    Bottom,
    Left,
}

/// A voxel and one of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crack {
    column: i64,
    row: i64,
    side: Side,
}

/// A closed walk along sides.
struct Loop {
    cracks: Vec<Crack>,
    is_hole: bool,
    /// Holes that are joined to it: behind which of its cracks, which loop, before which of its own.
    joined: Vec<(usize, usize, usize)>,
}

impl Mask<'_> {
    fn is_inside(&self, column: i64, row: i64) -> bool {
        (0..self.columns).contains(&column)
            && (0..self.rows).contains(&row)
            && self.inside[(row * self.columns + column) as usize]
    }

    fn is_top(&self, column: i64, row: i64) -> bool {
        self.is_inside(column, row) && !self.is_inside(column, row - 1)
    }

    /// The side that follows, with the inside on the right.
    fn next(&self, at: Crack) -> Crack {
        let Crack { column, row, side } = at;
        // Along the side, and across it to the outside.
        let ([ahead_x, ahead_y], [out_x, out_y]) = side.directions();
        let ahead = [column + ahead_x, row + ahead_y];
        let beyond = [ahead[0] + out_x, ahead[1] + out_y];
        match (self.is_inside(ahead[0], ahead[1]), self.is_inside(beyond[0], beyond[1])) {
            (false, _) => Crack { side: side.turned(1), ..at },
            (true, false) => Crack { column: ahead[0], row: ahead[1], side },
            (true, true) => Crack { column: beyond[0], row: beyond[1], side: side.turned(3) },
        }
    }
}

impl Side {
    fn directions(self) -> ([i64; 2], [i64; 2]) {
        match self {
            Self::Top => ([1, 0], [0, -1]),
            Self::Right => ([0, 1], [1, 0]),
            Self::Bottom => ([-1, 0], [0, 1]),
            Self::Left => ([0, -1], [-1, 0]),
        }
    }

    fn turned(self, by: usize) -> Self {
        let all = [Self::Top, Self::Right, Self::Bottom, Self::Left];
        all[(self as usize + by) % 4]
    }
}

impl Crack {
    fn point(self) -> Point {
        let (_, [x, y]) = self.side.directions();
        [self.column as f64 + OFFSET * x as f64, self.row as f64 + OFFSET * y as f64]
    }
}

/// The outlines of a mask, as polygons; the first point does not follow the last one again.
///
/// # Panics
/// When the mask is no whole number of rows.
pub(super) fn outlines(inside: &[bool], columns: usize) -> Vec<Vec<Point>> {
    assert!(columns > 0 && inside.len().is_multiple_of(columns), "a mask has whole rows");
    let Some((from, to)) = bounds(inside, columns) else { return Vec::new() };
    // Only what is around the mask is walked through.
    let width = to[0] - from[0];
    let rows = inside.chunks_exact(columns).take(to[1]).skip(from[1]);
    let window: Vec<bool> = rows.flat_map(|row| &row[from[0]..to[0]]).copied().collect();
    let rows = window.len() / width;
    let mask = Mask { inside: &window, columns: width as i64, rows: rows as i64 };
    let (mut loops, owners) = walks(&mask);
    join(&mask, &mut loops, &owners);
    let shift = |[x, y]: Point| [x + from[0] as f64, y + from[1] as f64];
    let outer = (0..loops.len()).filter(|index| !loops[*index].is_hole);
    let polygons = outer.map(|index| {
        let mut points = Vec::new();
        follow(&loops, index, 0, &mut points);
        straightened(&points).into_iter().map(shift).collect()
    });
    polygons.collect()
}

/// The first column and row of a mask, and those behind its last ones.
fn bounds(inside: &[bool], columns: usize) -> Option<([usize; 2], [usize; 2])> {
    let (mut from, mut to) = ([usize::MAX; 2], [0; 2]);
    for (row, values) in inside.chunks_exact(columns).enumerate() {
        let Some(first) = values.iter().position(|v| *v) else { continue };
        let last = values.iter().rposition(|v| *v).unwrap_or(first);
        from = [from[0].min(first), from[1].min(row)];
        to = [to[0].max(last + 1), row + 1];
    }
    (to[1] > 0).then_some((from, to))
}

/// Every closed walk, and of each voxel with a top side the walk and its place in it.
fn walks(mask: &Mask<'_>) -> (Vec<Loop>, Vec<Option<(usize, usize)>>) {
    let mut owners = vec![None; mask.inside.len()];
    let mut loops: Vec<Loop> = Vec::new();
    let place = |column: i64, row: i64| (row * mask.columns + column) as usize;
    for row in 0..mask.rows {
        for column in 0..mask.columns {
            // Every walk has a top side.
            if !mask.is_top(column, row) || owners[place(column, row)].is_some() {
                continue;
            }
            let start = Crack { column, row, side: Side::Top };
            let (mut at, mut cracks) = (start, Vec::new());
            loop {
                if at.side == Side::Top {
                    owners[place(at.column, at.row)] = Some((loops.len(), cracks.len()));
                }
                cracks.push(at);
                at = mask.next(at);
                if at == start {
                    break;
                }
            }
            let is_hole = area(&cracks) < 0;
            loops.push(Loop { cracks, is_hole, joined: Vec::new() });
        }
    }
    (loops, owners)
}

/// Voxels that a walk encloses; below 0 where it runs around a hole.
fn area(cracks: &[Crack]) -> i64 {
    // Green's theorem along the horizontal sides: those at the bottom count up to the lower edge.
    let part = |crack: &Crack| match crack.side {
        Side::Top => -crack.row,
        Side::Bottom => crack.row + 1,
        _ => 0,
    };
    cracks.iter().map(part).sum()
}

/// Joins every hole to the walk above its topmost voxel.
fn join(mask: &Mask<'_>, loops: &mut [Loop], owners: &[Option<(usize, usize)>]) {
    for index in 0..loops.len() {
        if !loops[index].is_hole {
            continue;
        }
        // The sides at the bottom of voxels above the hole; the highest of them is its top.
        let cracks = loops[index].cracks.iter().enumerate();
        let bottoms = cracks.filter(|(_, crack)| crack.side == Side::Bottom);
        let Some((own, top)) = bottoms.min_by_key(|(_, crack)| (crack.row, crack.column)) else {
            continue;
        };
        // Up to the next voxel outside: what bounds it lies higher, so that nothing runs in circles.
        let (column, mut row) = (top.column, top.row);
        while !mask.is_top(column, row) {
            row -= 1;
        }
        let owner = owners[(row * mask.columns + column) as usize];
        if let Some((around, behind)) = owner {
            loops[around].joined.push((behind, index, own));
        }
    }
}

/// Adds the points of a walk from one of its cracks on, with those of the holes that are joined to it.
fn follow(loops: &[Loop], index: usize, from: usize, points: &mut Vec<Point>) {
    /// Where a walk is: its loop, the crack it began with, how many it has passed, and the ends of the
    /// channel that leads back.
    struct At {
        index: usize,
        from: usize,
        passed: usize,
        back: Option<[Point; 2]>,
    }
    // Holes within holes may be many: they are kept on a stack of our own.
    let mut open = vec![At { index, from, passed: 0, back: None }];
    while let Some(at) = open.last_mut() {
        let here = &loops[at.index];
        let count = here.cracks.len();
        if at.passed == count {
            points.extend(at.back.into_iter().flatten());
            open.pop();
            continue;
        }
        let crack = (at.from + at.passed) % count;
        at.passed += 1;
        points.push(here.cracks[crack].point());
        // A side has one hole below it at most.
        let Some((_, hole, own)) = here.joined.iter().find(|(behind, ..)| *behind == crack) else {
            continue;
        };
        let below = &loops[*hole].cracks;
        let start = beside(here.cracks[crack], here.cracks[(crack + 1) % count]);
        let end = beside(below[*own], below[(own + below.len() - 1) % below.len()]);
        points.extend([start, end]);
        open.push(At { index: *hole, from: *own, passed: 0, back: Some([end, start]) });
    }
}

/// The point on a polygon a little to the right of a side's, on the way to its neighbour there.
fn beside(at: Crack, right: Crack) -> Point {
    let ([x, y], [to_x, to_y]) = (at.point(), right.point());
    let share = BESIDE / (to_x - x);
    [x + BESIDE, y + share * (to_y - y)]
}

/// A polygon without the points between which it runs straight on.
fn straightened(points: &[Point]) -> Vec<Point> {
    let count = points.len();
    let mut kept: Vec<Point> = Vec::with_capacity(count);
    for (i, at) in points.iter().enumerate() {
        let before = kept.last().copied().unwrap_or(points[count - 1]);
        let after = points[(i + 1) % count];
        let (a, b) = ([at[0] - before[0], at[1] - before[1]], [after[0] - at[0], after[1] - at[1]]);
        let cross = a[0] * b[1] - a[1] * b[0];
        let along = a[0] * b[0] + a[1] * b[1];
        if cross.abs() > 1e-9 || along <= 0.0 {
            kept.push(*at);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask_of(rows: &[&str]) -> (Vec<bool>, usize) {
        let inside = rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect();
        (inside, rows[0].len())
    }

    /// Which centres of voxels lie in an odd number of polygons.
    fn filled(polygons: &[Vec<Point>], columns: usize, rows: usize) -> Vec<bool> {
        let inside = |x: f64, y: f64| {
            let crossings = polygons.iter().flat_map(|points| {
                (0..points.len()).filter(move |i| {
                    let ([ax, ay], [bx, by]) = (points[*i], points[(i + 1) % points.len()]);
                    (ay > y) != (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)
                })
            });
            crossings.count() % 2 == 1
        };
        let all = (0..rows).flat_map(|y| (0..columns).map(move |x| (x, y)));
        all.map(|(x, y)| inside(x as f64, y as f64)).collect()
    }

    /// As `filled`, of polygons rounded to whole voxels, with everything that their borders pass.
    fn rounded(polygons: &[Vec<Point>], columns: usize, rows: usize) -> Vec<bool> {
        let round = |points: &Vec<Point>| points.iter().map(|p| p.map(f64::round)).collect();
        let whole: Vec<Vec<Point>> = polygons.iter().map(round).collect();
        let mut mask = filled(&whole, columns, rows);
        for points in &whole {
            for i in 0..points.len() {
                let ([ax, ay], [bx, by]) = (points[i], points[(i + 1) % points.len()]);
                let steps = (bx - ax).abs().max((by - ay).abs()).max(1.0);
                for step in 0..=steps as usize {
                    let t = step as f64 / steps;
                    let at = [(ax + t * (bx - ax)).round(), (ay + t * (by - ay)).round()];
                    mask[at[1] as usize * columns + at[0] as usize] = true;
                }
            }
        }
        mask
    }

    fn check(inside: &[bool], columns: usize) -> Vec<Vec<Point>> {
        let polygons = outlines(inside, columns);
        let rows = inside.len() / columns;
        assert_eq!(filled(&polygons, columns, rows), inside, "{polygons:?}");
        assert_eq!(rounded(&polygons, columns, rows), inside, "{polygons:?}");
        // Each alone, too: nothing lies in two polygons.
        let each: usize = polygons
            .iter()
            .map(|p| filled(std::slice::from_ref(p), columns, rows).iter().filter(|v| **v).count())
            .sum();
        assert_eq!(each, inside.iter().filter(|v| **v).count());
        polygons
    }

    #[test]
    fn a_voxel_is_a_diamond() {
        let (inside, columns) = mask_of(&["   ", " # ", "   "]);
        let polygons = check(&inside, columns);
        assert_eq!(polygons, [vec![[1.0, 0.51], [1.49, 1.0], [1.0, 1.49], [0.51, 1.0]]]);
    }

    #[test]
    fn straight_lines_have_two_points() {
        let polygons = check(&[true; 20], 5);
        assert_eq!(polygons.len(), 1);
        assert_eq!(polygons[0].len(), 8);
    }

    #[test]
    fn holes_are_joined() {
        let (inside, columns) = mask_of(&[
            "########", "#   #  #", "# # #  #", "#   ####", "###   ##", "###   ##", "########",
        ]);
        let polygons = check(&inside, columns);
        // The ring with its three holes, and the voxel in one of them.
        assert_eq!(polygons.len(), 2);
    }

    #[test]
    fn corners_do_not_join() {
        let (inside, columns) = mask_of(&["##  ", "##  ", "  ##", "  ##"]);
        assert_eq!(check(&inside, columns).len(), 2);
        assert!(outlines(&[false; 9], 3).is_empty());
    }

    proptest! {
        #[test]
        fn every_mask_comes_back(columns in 1usize..14, seed in prop::collection::vec(0u8..4, 1..140)) {
            let rows = seed.len() / columns;
            let inside: Vec<bool> = seed[..rows * columns].iter().map(|v| *v > 0).collect();
            if rows > 0 {
                check(&inside, columns);
                let sparse: Vec<bool> = seed[..rows * columns].iter().map(|v| *v == 3).collect();
                check(&sparse, columns);
            }
        }
    }
}
