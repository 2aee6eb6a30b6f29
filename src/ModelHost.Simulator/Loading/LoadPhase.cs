namespace ModelHost.Simulator.Loading;

/// <summary>The parts of a start that take time, in their order.</summary>
internal enum LoadPhase
{
    Platform,
    Config,
    Engine,
    Download,
    Weights,
    Compile,
    Profile,
    Graphs,
}
