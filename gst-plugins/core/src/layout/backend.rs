//! Who draws the wall.

/// A kind of memory that pictures live in, and who draws a wall of such pictures.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Backend {
    /// The processor, in system memory.
    #[default]
    Cpu,
    /// OpenGL.
    Gl,
    /// VA-API.
    Va,
    /// CUDA.
    Cuda,
}

/// Who is to draw pictures that live in `memories`, one entry for each camera whose pictures are known. Nothing is
/// chosen that has `failed`.
///
/// The device that has most of the pictures draws the wall: what is there already need not go there, and the others'
/// would have to come back. `current` stays as long as it has any picture, and while nothing is known: a change of the
/// device costs pictures.
pub fn choose(memories: &[Backend], current: Backend, failed: &[Backend]) -> Backend {
    let usable = |backend: Backend| backend != Backend::Cpu && !failed.contains(&backend);
    if usable(current) && (memories.is_empty() || memories.contains(&current)) {
        return current;
    }
    let count = |backend: Backend| memories.iter().filter(|memory| **memory == backend).count();
    [Backend::Gl, Backend::Va, Backend::Cuda]
        .into_iter()
        .filter(|backend| usable(*backend) && count(*backend) > 0)
        // Of equals the first.
        .min_by_key(|backend| std::cmp::Reverse(count(*backend)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Backend::{Cpu, Cuda, Gl, Va};

    #[test]
    fn the_device_that_has_the_pictures_draws_them() {
        for (memories, current, failed, wanted) in [
            (&[][..], Cpu, &[][..], Cpu),
            (&[Cpu, Cpu], Cpu, &[], Cpu),
            (&[Cpu, Cpu, Gl], Cpu, &[], Gl),
            (&[Va], Cpu, &[], Va),
            (&[Gl, Cuda, Cuda], Cpu, &[], Cuda),
            (&[Cuda, Va], Cpu, &[], Va),
            // What is there stays.
            (&[Gl, Cuda, Cuda], Gl, &[], Gl),
            (&[], Gl, &[], Gl),
            (&[Cpu], Gl, &[], Cpu),
            // What failed is not tried again.
            (&[Gl, Gl, Va], Gl, &[Gl], Va),
            (&[Gl, Gl], Gl, &[Gl], Cpu),
            (&[], Gl, &[Gl], Cpu),
        ] {
            assert_eq!(
                choose(memories, current, failed),
                wanted,
                "{memories:?} after {current:?}, {failed:?}"
            );
        }
    }

    fn backend() -> impl Strategy<Value = Backend> {
        prop::sample::select(vec![Cpu, Gl, Va, Cuda])
    }

    proptest! {
        #[test]
        fn a_choice_is_usable_and_stays(
            memories in prop::collection::vec(backend(), 0..9),
            current in backend(),
            failed in prop::collection::vec(backend(), 0..3),
        ) {
            let chosen = choose(&memories, current, &failed);
            prop_assert!(chosen == Cpu || !failed.contains(&chosen));
            prop_assert!(chosen == Cpu || chosen == current || memories.contains(&chosen));
            prop_assert_eq!(choose(&memories, chosen, &failed), chosen);
            if memories.iter().all(|memory| *memory == Cpu || failed.contains(memory)) && !memories.is_empty() {
                prop_assert_eq!(chosen, Cpu);
            }
        }
    }
}
