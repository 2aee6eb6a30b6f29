using System.Diagnostics.CodeAnalysis;

namespace ModelHost.Core;

/// <summary>How a request was refused, which decides the HTTP status.</summary>
public enum FailureKind
{
    /// <summary>The request itself is wrong: 400.</summary>
    Invalid,
    /// <summary>What it names does not exist: 404.</summary>
    NotFound,
    /// <summary>It cannot be done as things stand: 409.</summary>
    Conflict,
    /// <summary>It may work later: 503.</summary>
    Unavailable,
}

/// <summary>An expected refusal.</summary>
/// <param name="Kind">Decides the HTTP status.</param>
/// <param name="Code">A stable name such as <c>deployment.port_taken</c>.</param>
/// <param name="Detail">What a person reads; names no secret.</param>
/// <param name="Field">The JSON name of the field at fault, where there is one.</param>
public sealed record Failure(FailureKind Kind, string Code, string Detail, string? Field = null)
{
    /// <summary>A value out of range or of the wrong form in <paramref name="field"/>.</summary>
    public static Failure Invalid(string field, string detail) => new(FailureKind.Invalid, "validation", detail, field);
}

/// <summary>A value, or the reason why there is none.</summary>
/// <typeparam name="T">What success carries.</typeparam>
public readonly struct Result<T>
{
    private readonly T? _value;

    private Result(T? value, Failure? failure) => (_value, Failure) = (value, failure);

    /// <summary>The refusal; null on success.</summary>
    public Failure? Failure { get; }

    /// <summary>Opens the result.</summary>
    /// <returns>True and the value, or false and the failure.</returns>
    public bool TryGet([NotNullWhen(true)] out T? value, [NotNullWhen(false)] out Failure? failure)
    {
        (value, failure) = (_value, Failure);
        return failure is null;
    }

    /// <summary>Makes one thing of both cases.</summary>
    public TOut Match<TOut>(Func<T, TOut> success, Func<Failure, TOut> refused) => Failure is null ? success(_value!) : refused(Failure);

#pragma warning disable CA2225 // the conversions are the way to make one
    /// <summary>Success.</summary>
    public static implicit operator Result<T>(T value) => new(value, null);

    /// <summary>A refusal.</summary>
    public static implicit operator Result<T>(Failure failure) => new(default, failure);
#pragma warning restore CA2225
}
