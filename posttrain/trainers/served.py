"""Completions from a server that follows the trainer's weights, and is compared with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list

from posttrain.errors import ModelError, PosttrainError
from posttrain.generation.local import eos_ids
from posttrain.generation.probe import probe
from posttrain.generation.start import Address, start_engine
from posttrain.generation.vllm.engine import VLLMEngine
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.partitions import whole

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

KNOWN = 4  # prompts of the probe


class Served:
    """A server for a trainer's rollouts: started at the first one, ended with training.

    Attributes:
        engine: asks the server.
        step: of the weights that it has.
        probes: rollouts until the next probe.
        awake: whether it has the memory of its GPUs.
    """

    def __init__(self, trainer: Rolling, settings: VLLMSettings) -> None:
        self.trainer, self.settings = trainer, settings
        self.step: int | None = None
        self.probes = 0
        self.awake = True
        self.engine = self.start()

    def start(self) -> VLLMEngine:
        """The engine, over a server that the first process starts from the model's own folder."""
        trainer, state = self.trainer, self.trainer.accelerator
        model = state.unwrap_model(trainer.model_wrapped)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        start = str(bare.config._name_or_path)
        if not start:
            raise ModelError(
                "a vLLM server starts from a folder or hub id, and the model was made in memory; "
                "save it and load it from there, or use generation: {name: local}"
            )
        engine = start_engine(
            self.settings,
            model,
            eos_ids(bare, trainer.processing_class),
            start=start,
            log=Path(str(trainer.args.output_dir)) / "vllm.log",
            main=state.is_main_process,
            share=self.share if state.num_processes > 1 else None,
        )
        assert isinstance(engine, VLLMEngine)
        if state.num_processes > 1 and state.is_main_process:
            engine.watch()
        return engine

    def share(self, address: Address | None) -> Address:
        """What the first process has, in every process."""
        found: Address = self.told(address)
        return found

    def told(self, value: Any) -> Any:
        """A value of the first process."""
        if self.trainer.accelerator.num_processes == 1:
            return value
        [found] = broadcast_object_list([value])
        return found

    def follow(self) -> None:
        """Send the policy as it is, unless the server has it; compare the two when it is time.

        Raises:
            ServerError: the server is gone, or refuses the weights.
            ProbeError: server and trainer do not compute the same.
        """
        trainer, step = self.trainer, self.trainer.state.global_step
        self.wake()
        if self.step == step:
            return
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        wrong: PosttrainError | None = None
        trainer.accelerator.wait_for_everyone()  # others may still ask for answers of the old ones
        with whole(trainer.model_wrapped, bare, trainer.value_model):
            if trainer.accelerator.is_main_process:
                try:
                    with trainer.policy_alone():  # the server has no value model
                        self.engine.push(model)
                        self.compare(model)
                except PosttrainError as error:
                    wrong = error
        wrong, self.engine.version = self.told((wrong, self.engine.version))
        if wrong is not None:
            raise wrong
        self.step = step

    def compare(self, model: Any) -> None:
        """The probe, at the start and after every `probe_rollouts` rollouts."""
        if self.probes:
            self.probes -= 1
            return
        trainer, settings = self.trainer, self.settings
        rows = [trainer.train_dataset[i] for i in range(min(KNOWN, len(trainer.train_dataset)))]
        with trainer.compute_loss_context_manager():
            probe(
                self.engine,
                model,
                trainer.processing_class,
                [list(row["prompt_ids"]) for row in rows],
                max_gap=settings.max_gap,
                mean_gap=settings.mean_gap,
            )
        self.probes = settings.probe_rollouts - 1

    def rest(self) -> None:
        """After a rollout: leave the GPUs' memory to the trainer, where `sleep` says so."""
        state = self.trainer.accelerator
        if not self.settings.sleep:
            return
        state.wait_for_everyone()  # others may still ask
        if state.is_main_process:
            self.engine.sleep()
        self.awake = False

    def wake(self) -> None:
        """Take that memory back."""
        state = self.trainer.accelerator
        if self.awake:
            return
        if state.is_main_process:
            self.engine.wake()
        state.wait_for_everyone()
        self.awake = True

    def close(self) -> None:
        """End the server, if it was started here."""
        self.engine.close()
