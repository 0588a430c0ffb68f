//! Layers whose kernels after attention, up to the next layer's, are one, see [`Chain`].

use crate::{
    config::{LayerConfig, ModelConfig},
    error::{Error, Result},
    gpu::{
        device::{buffers::GpuBuffer, gpu::Gpu, grid::StepSize},
        kernels::{Chain, Kernel, Linear, SplitAttention},
        model::{
            forward::{Model, StepShape},
            layers::FusedProjections,
        },
        weights::matrix::GpuMatrix,
    },
};

/// The only matrix of several that were joined, in one buffer; else `None`.
fn single(joined: &FusedProjections) -> Option<&GpuMatrix> {
    match joined.as_slice() {
        [(matrix, _)] => Some(matrix),
        _ => None,
    }
}

fn linear(matrix: &GpuMatrix) -> Option<Linear> {
    (matrix.parts.len() == 1).then_some(Linear {
        format: matrix.format,
        rows: matrix.rows,
        cols: matrix.cols,
        y_stride: matrix.rows,
        y_offset: 0,
        softcap: None,
        over_outputs: false,
        tiled: matrix.tiled,
    })
}

/// Words of a set by which workgroups exchange results, for all layers of a model.
pub(in crate::gpu) fn set_words(config: &ModelConfig) -> usize {
    let widest =
        |width: fn(&LayerConfig) -> usize| config.layers.iter().map(width).max().unwrap_or(0);
    let attention = widest(|layer| layer.n_heads * layer.head_dim);
    Chain::set_words(config.hidden_size, attention, widest(|layer| layer.intermediate_size))
}

/// For each of so many chained kernels (at least two) the set of words it uses, and the one it
/// empties: that of the next kernel, or of the next step's first. In a ring of an odd number the
/// last one has a set of its own.
fn sets_in_turns(count: usize) -> Vec<[usize; 2]> {
    let set = |place: usize| {
        if place + 1 == count && count % 2 == 1 { Chain::SETS - 1 } else { place % 2 }
    };
    (0..count).map(|place| [set(place), set((place + 1) % count)]).collect()
}

impl Model {
    /// The kernel from layer `index`'s attention to the next one's or the head; `None` where it
    /// cannot be used.
    pub(in crate::gpu) fn persistent(&self, index: usize) -> Option<Chain> {
        self.persistent_of(index, self.persistent_workgroups?)
    }

    fn persistent_of(&self, index: usize, workgroups: usize) -> Option<Chain> {
        let layer = &self.layers[index];
        let qkv = match self.layers.get(index + 1) {
            Some(next) => Some(linear(single(&next.qkv)?)?),
            None => None,
        };
        let config = &self.config.layers[index];
        let chain = Chain {
            split: SplitAttention::of(
                config,
                &self.config,
                self.cache_type,
                self.caches[index].capacity,
            ),
            o: linear(&layer.o_proj)?,
            gate_up: linear(single(&layer.gate_up)?)?,
            down: linear(&layer.down_proj)?,
            qkv,
            eps: self.config.rms_norm_eps,
            set_words: set_words(&self.config),
            workgroups,
        };
        chain.can_run(self.gpu.target(), self.gpu.facts()).then_some(chain)
    }

    /// What [`Model::persistent`]'s kernel is bound to.
    pub(in crate::gpu) fn persistent_buffers(&self, index: usize) -> Vec<&GpuBuffer> {
        let (s, layer, next) = (&self.workspace, &self.layers[index], self.layers.get(index + 1));
        let qkv = next.map_or(&layer.down_proj, |next| &next.qkv[0].0);
        let matrices = [&layer.o_proj, &layer.gate_up[0].0, &layer.down_proj, qkv];
        let weights = matrices
            .into_iter()
            .flat_map(|matrix| [&matrix.parts[0].data, &matrix.parts[0].scales]);
        let inputs = [
            &s.partial_attention,
            &s.attention_stats,
            &s.rows,
            &layer.post_attention_norm,
            &layer.pre_feedforward_norm,
            &layer.post_feedforward_norm,
            next.map_or(&self.norm, |next| &next.input_norm),
        ];
        let y = if next.is_some() { &s.qkv } else { &s.normed };
        let results = [&s.x, &s.exchange, y, &s.fault, &layer.scalar];
        weights.chain(inputs).chain(results).collect()
    }

    /// Chains kernels where the device's tuning says so and they can be.
    ///
    /// Errors: the user asked for it, and none of this model's can be, or fewer workgroups run at
    /// the same time than are tried.
    pub(in crate::gpu) async fn choose_persistent(&mut self) -> Result<()> {
        if !self.gpu.tuning().persistent {
            return Ok(());
        }
        match self.find_workgroups().await? {
            Ok(workgroups) => {
                log::info!("the persistent kernel runs in {workgroups} workgroups");
                self.persistent_workgroups = Some(workgroups);
            }
            Err(reason) if self.gpu.requires_persistent() => {
                return Err(Error::Device(format!("{reason}: leave out persistent=on")));
            }
            Err(reason) => log::info!("no persistent kernel: {reason}"),
        }
        Ok(())
    }

    /// Finds out how many workgroups run at the same time, by letting them wait for one another; or
    /// why none can.
    async fn find_workgroups(&mut self) -> Result<Result<usize, String>> {
        for &workgroups in self.gpu.tuning().persistent_workgroups {
            let mut chains = (0..self.layers.len())
                .filter_map(|index| Some((index, self.persistent_of(index, workgroups)?)));
            let (chain, others) = (chains.next(), chains.count());
            let (Some((index, chain)), 1..) = (chain, others) else {
                let needs = "int4 in groups of 32, with dp4a=on and subgroups of 8";
                return Ok(Err(format!(
                    "the model has no two layers for the persistent kernel ({needs})"
                )));
            };
            self.compile_persistent(workgroups)?;
            if self.runs_together(index, &chain).await? {
                return Ok(Ok(workgroups));
            }
        }
        Ok(Err(format!("{} does not run workgroups at the same time", self.gpu.facts())))
    }

    /// All kernels of generation at the same time: the others are ready before the chained ones.
    fn compile_persistent(&mut self, workgroups: usize) -> Result<()> {
        let chosen = self.persistent_workgroups.replace(workgroups);
        let compiled = self.compile(StepShape::Decode);
        self.persistent_workgroups = chosen;
        compiled
    }

    /// Tells each chained kernel which set of words its workgroups use and which they empty, and
    /// empties all.
    fn share_exchange(&self, workgroups: usize) {
        let chained: Vec<usize> = (0..self.layers.len())
            .filter(|index| self.persistent_of(*index, workgroups).is_some())
            .collect();
        for (index, sets) in chained.iter().zip(sets_in_turns(chained.len())) {
            let sets = sets.map(|set| set as f32);
            self.gpu.queue().write_buffer(
                &self.layers[*index].scalar,
                4,
                bytemuck::cast_slice(&sets),
            );
        }
        self.empty_exchange();
    }

    fn empty_exchange(&self) {
        let exchange = &self.workspace.exchange;
        let empty = vec![Chain::EMPTY; exchange.size() as usize / 4];
        self.gpu.queue().write_buffer(exchange, 0, bytemuck::cast_slice(&empty));
    }

    async fn runs_together(&self, index: usize, chain: &Chain) -> Result<bool> {
        let (gpu, fault): (&Gpu, _) = (&self.gpu, &self.workspace.fault);
        self.share_exchange(chain.workgroups);
        let buffers: Vec<&wgpu::Buffer> =
            self.persistent_buffers(index).into_iter().map(|buffer| &**buffer).collect();
        let dispatch =
            gpu.dispatch(&chain.source(gpu.target()), &buffers, chain.grid(gpu.target()))?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        dispatch.encode(&mut encoder.begin_compute_pass(&Default::default()), StepSize::default());
        gpu.queue().submit([encoder.finish()]);
        let words: Vec<u32> = gpu.download(fault).await?;
        gpu.queue().write_buffer(fault, 0, &[0; 16]);
        self.empty_exchange();
        Ok(words[0] == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_is_emptied_just_before_its_turn() {
        for count in 2..10 {
            let sets = sets_in_turns(count);
            for (place, [used, emptied]) in sets.iter().enumerate() {
                assert_ne!(used, emptied, "{place} of {count}");
                assert_eq!(*emptied, sets[(place + 1) % count][0], "{place} of {count}");
                assert!(*used < Chain::SETS);
            }
        }
    }
}
