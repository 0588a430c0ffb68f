//! The slots of a KV cache that a step reads, and those that each query sees.

use std::ops::Range;

/// The slots and mask of a step's queries.
#[derive(Debug, PartialEq)]
pub(super) struct Sight {
    /// Slots to attend to.
    pub slots: Range<usize>,
    pub mask: Visible,
}

#[derive(Debug, PartialEq)]
pub(super) enum Visible {
    /// Every query sees every slot.
    All,
    /// Slots are in the order of positions. The last query sees all of them, and each query before
    /// it one fewer.
    Causal,
    /// `[queries, slots]`
    Some(Vec<bool>),
}

/// The slots and mask for queries at `position..position + rows`, which are already stored. In a
/// cache of `capacity` slots, position p is in slot `p % capacity`. A query sees the `window`
/// positions that end with its own.
pub(super) fn sight(position: usize, rows: usize, capacity: usize, window: Option<usize>) -> Sight {
    let end = position + rows;
    let first_seen = |query: usize| window.map_or(0, |window| (query + 1).saturating_sub(window));
    let first = first_seen(position);
    let (start, len) = (first % capacity, end - first);
    // Across the end of a ring, slots are not in the order of positions. A mask for each slot is
    // then necessary.
    let slots = if start + len <= capacity { start..start + len } else { 0..capacity };
    let in_order = slots.len() == len && slots.start == start;
    let mask = match () {
        () if in_order && rows == 1 => Visible::All,
        () if in_order && first_seen(end - 1) == 0 => Visible::Causal,
        () => {
            // The latest position in each slot, if there is one.
            let held = slots
                .clone()
                .map(|slot| (end - 1).checked_sub((end - 1 + capacity - slot) % capacity));
            let held: Vec<Option<usize>> = held.collect();
            let sees = |query: usize, held: &Option<usize>| {
                held.is_some_and(|p| p <= query && p >= first_seen(query))
            };
            Visible::Some(
                (position..end)
                    .flat_map(|query| held.iter().map(move |held| sees(query, held)))
                    .collect(),
            )
        }
    };
    Sight { slots, mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every query of every step sees exactly the right positions, each once.
    #[test]
    fn sees_what_the_definition_says() {
        for (capacity, window) in
            [(7, Some(4)), (12, Some(4)), (9, Some(1)), (20, Some(6)), (40, None), (40, Some(100))]
        {
            let most = window.map_or(5, |window| if capacity < 40 { capacity - window } else { 5 });
            for rows in 1..=most {
                for position in 0..40 - rows {
                    let Sight { slots, mask } = sight(position, rows, capacity, window);
                    let mut held = vec![None; capacity];
                    (0..position + rows).for_each(|p| held[p % capacity] = Some(p));
                    for row in 0..rows {
                        let query = position + row;
                        let visible = |(i, _): &(usize, usize)| match &mask {
                            Visible::All => true,
                            Visible::Causal => *i + rows <= slots.len() + row,
                            Visible::Some(mask) => mask[row * slots.len() + i],
                        };
                        let mut seen: Vec<usize> = slots
                            .clone()
                            .enumerate()
                            .filter(visible)
                            .map(|(_, slot)| held[slot].unwrap())
                            .collect();
                        seen.sort();
                        let first = window.map_or(0, |window| (query + 1).saturating_sub(window));
                        assert_eq!(
                            seen,
                            (first..=query).collect::<Vec<_>>(),
                            "{capacity} {window:?} {position} {rows}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn decoding_needs_no_mask_but_around_the_end_of_a_ring() {
        assert_eq!(sight(30, 1, 40, None), Sight { slots: 0..31, mask: Visible::All });
        assert_eq!(sight(6, 1, 10, Some(4)), Sight { slots: 3..7, mask: Visible::All });
        let wrapped = sight(11, 1, 10, Some(4));
        assert_eq!(wrapped.slots, 0..10);
        let count = |mask: &[bool]| mask.iter().filter(|sees| **sees).count();
        assert!(matches!(wrapped.mask, Visible::Some(mask) if count(&mask) == 4));
    }
}
