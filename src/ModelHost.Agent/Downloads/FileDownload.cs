using System.Net;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Artifacts;

namespace ModelHost.Agent.Downloads;

/// <summary>What is known of a partial file, beside it on the disk.</summary>
internal sealed record PartState
{
    /// <summary><see cref="RemoteFile.Identity"/>, hashed: addresses may be signed.</summary>
    public required string Identity { get; init; }

    /// <summary>The address that it came from, hashed: what a server says of its version means nothing to another.</summary>
    public string From { get; init; } = "";

    /// <summary>The strong ETag or date by which the server knows the version again; empty: it gave none.</summary>
    public string Validator { get; init; } = "";

    /// <summary>The hash of the whole; null: it is not whole yet.</summary>
    public string? Sha256 { get; init; }
}

[JsonSerializable(typeof(PartState))]
internal sealed partial class PartStateJson : JsonSerializerContext;

/// <summary>Downloads a file into place, going on where an earlier attempt, of this process or one before, was cut off.</summary>
internal sealed class FileDownload(GuardedHttp http, DownloadOptions options, DiskRoom room, TimeProvider time, Random random)
{
    private const int BufferBytes = 128 * 1024;
    // less than this between two failures is no progress: a server that cuts each answer short would be asked for ever
    private const long ProgressBytes = 64 * 1024;
    private static readonly TimeSpan LongestDelay = TimeSpan.FromMinutes(1);

    /// <summary>Downloads it to <paramref name="path"/>, beside which <c>.json</c> keeps what is known of it.</summary>
    /// <exception cref="DownloadException">It could not be had; what has come stays for another attempt, unless its hash is wrong.</exception>
    public async Task<DownloadedFile> GetAsync(RemoteFile file, string path, IDownloadReport report, CancellationToken cancellationToken)
    {
        long most = 0;
        for (var failures = 0; ;)
        {
            try
            {
                return await AttemptAsync(file, path, report, cancellationToken);
            }
            catch (DownloadException e) when (e.IsPassing)
            {
                var length = Length(path);
                failures = length >= most + ProgressBytes ? 1 : failures + 1;
                most = Math.Max(most, length);
                if (failures >= options.Attempts)
                    throw;
                report.Waits(e.Message);
                await Task.Delay(e.RetryAfter ?? Delay(failures), time, cancellationToken);
            }
            catch (IOException e) when (DiskRoom.IsFull(e))
            {
                throw DiskRoom.Full(e.Message);
            }
        }
    }

    /// <summary>Takes a file that is on the disk already in place of a download, if it is the same; null: it is not.</summary>
    /// <param name="file">What is wanted; its hash is known.</param>
    /// <param name="existing">The file that may be it.</param>
    /// <param name="path">Where the download would lie.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    public static async Task<DownloadedFile?> ReuseAsync(RemoteFile file, string existing, string path, CancellationToken cancellationToken)
    {
        if (Known(file, path) is not null || new FileInfo(existing) is not { Exists: true, LinkTarget: null } found)
            return null;
        await using (var content = found.OpenRead())
        {
            if (Convert.ToHexStringLower(await SHA256.HashDataAsync(content, cancellationToken)) != file.Sha256)
                return null;
        }
        Forget(path);
        Libc.Link(existing, path);
        WriteState(path, new PartState { Identity = Hash(file.Identity), Sha256 = file.Sha256 });
        return new DownloadedFile(path, file.Sha256, found.Length);
    }

    // half of it is random: nodes that lost the same server do not come back to it at once
    private TimeSpan Delay(int failures)
    {
        var delay = options.RetryDelay * Math.Pow(2, Math.Min(failures - 1, 16));
        return (delay < LongestDelay ? delay : LongestDelay) * (0.5 + (random.NextDouble() / 2));
    }

    private async Task<DownloadedFile> AttemptAsync(RemoteFile file, string path, IDownloadReport report, CancellationToken cancellationToken)
    {
        var state = Known(file, path);
        var have = Length(path);
        if (state?.Sha256 is { } known)
        {
            report.At(have, have);
            return new DownloadedFile(path, known, have);
        }
        var validator = state?.From == Hash(file.Url.AbsoluteUri) ? state.Validator : "";
        // without a validator or a hash, nobody could tell whether the rest belongs to what is there
        if (state is null || (validator.Length == 0 && file.Sha256.Length == 0))
            have = 0;
        using var answer = await AskAsync(file, have, validator, cancellationToken);
        var total = Total(answer, have, file, path);
        if (answer.Status != HttpStatusCode.PartialContent && answer.Status != HttpStatusCode.RequestedRangeNotSatisfiable)
            have = 0;
        if (total > options.MaxFileBytes)
            throw new DownloadException("too_large", $"{GuardedHttp.Display(file.Url)} has {total} bytes, more than Downloads:MaxFileBytes");
        room.Require((total ?? 0) - have);
        WriteState(path, new PartState { Identity = Hash(file.Identity), From = Hash(file.Url.AbsoluteUri), Validator = Validator(answer) });
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        report.At(have, total);
        var length = await CopyAsync(answer, file, path, have, total, hash, report, cancellationToken);
        var sha256 = Convert.ToHexStringLower(hash.GetHashAndReset());
        if (file.Sha256.Length > 0 && sha256 != file.Sha256)
        {
            Forget(path);
            // the beginning may have been of another version
            throw new DownloadException("hash_mismatch", $"{GuardedHttp.Display(file.Url)} has the SHA-256 {sha256}, not {file.Sha256}", isPassing: have > 0);
        }
        WriteState(path, new PartState { Identity = Hash(file.Identity), Sha256 = sha256 });
        return new DownloadedFile(path, sha256, length);
    }

    private async Task<GuardedAnswer> AskAsync(RemoteFile file, long have, string validator, CancellationToken cancellationToken)
    {
        var headers = new Dictionary<string, string>(file.Headers);
        if (have > 0)
        {
            headers["Range"] = $"bytes={have}-";
            if (validator.Length > 0)
                headers["If-Range"] = validator;
        }
        return file.Login is null ? await http.GetAsync(file.Url, headers, cancellationToken) : await file.Login.GetAsync(http, file.Url, headers, cancellationToken);
    }

    /// <summary>The whole size; null: the server does not say. Starts over when the answer does not go on where this ends.</summary>
    private static long? Total(GuardedAnswer answer, long have, RemoteFile file, string path)
    {
        var range = answer.ContentHeaders.ContentRange;
        switch (answer.Status)
        {
            case HttpStatusCode.OK:
                return answer.ContentHeaders.ContentLength;
            case HttpStatusCode.PartialContent when have > 0 && range?.From == have:
                return range.Length;
            case HttpStatusCode.RequestedRangeNotSatisfiable when have > 0 && range?.Length == have:
                return have; // all of it is there
            case HttpStatusCode.PartialContent or HttpStatusCode.RequestedRangeNotSatisfiable:
                Forget(path);
                throw new DownloadException("answer_invalid", $"{GuardedHttp.Display(file.Url)} does not go on where it is asked to", isPassing: have > 0);
            default:
                throw new DownloadException("answer_invalid", $"{GuardedHttp.Display(file.Url)} answers {(int)answer.Status} where a file was asked for");
        }
    }

    private async Task<long> CopyAsync(
        GuardedAnswer answer, RemoteFile file, string path, long have, long? total, IncrementalHash hash, IDownloadReport report, CancellationToken cancellationToken)
    {
        await using var target = new FileStream(path, new FileStreamOptions
        {
            Mode = FileMode.OpenOrCreate,
            Access = FileAccess.ReadWrite,
            Share = FileShare.Read,
            BufferSize = 0,
            Options = FileOptions.Asynchronous,
        });
        target.SetLength(have);
        var buffer = new byte[BufferBytes];
        for (int read; target.Position < have && (read = await target.ReadAsync(buffer, cancellationToken)) > 0;)
            hash.AppendData(buffer, 0, read);
        var looked = have;
        var isChecked = false;
        if (answer.Status != HttpStatusCode.RequestedRangeNotSatisfiable)
        {
            await using var body = await answer.OpenAsync(cancellationToken);
            for (int read; (read = await body.ReadAsync(buffer, cancellationToken)) > 0;)
            {
                if (target.Position + read > (total ?? options.MaxFileBytes))
                    throw new DownloadException("too_large", $"{GuardedHttp.Display(file.Url)} sends more than {total ?? options.MaxFileBytes} bytes");
                await target.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
                hash.AppendData(buffer, 0, read);
                report.At(target.Position, total);
                if (target.Position - looked >= DiskRoom.StepBytes)
                {
                    room.Require(0);
                    looked = target.Position;
                }
                if (!isChecked && target.Position >= PickleFiles.BeginningBytes)
                {
                    RefusePickle(file, target);
                    isChecked = true;
                }
            }
        }
        if (target.Position < total)
            throw new DownloadException("unreachable", $"{GuardedHttp.Display(file.Url)} ended after {target.Position} of {total} bytes", isPassing: true);
        RefusePickle(file, target);
        target.Flush(flushToDisk: true);
        return target.Position;
    }

    private static void RefusePickle(RemoteFile file, FileStream target)
    {
        if (!file.RefusesPickle)
            return;
        Span<byte> beginning = stackalloc byte[PickleFiles.BeginningBytes];
        if (PickleFiles.ByBeginning(beginning[..RandomAccess.Read(target.SafeFileHandle, beginning, 0)]))
            throw new DownloadException("pickle_refused", $"{file.Path} is a pickle, which runs code when it is loaded");
    }

    private static string Validator(GuardedAnswer answer) =>
        answer.Headers.ETag is { IsWeak: false } tag ? tag.ToString()
        : answer.Headers.ETag is null && answer.ContentHeaders.LastModified is { } date && answer.Headers.Date - date > TimeSpan.FromSeconds(60) // RFC 9110, 8.8.2.2
            ? date.ToString("R", System.Globalization.CultureInfo.InvariantCulture) : "";

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(System.Text.Encoding.UTF8.GetBytes(text)));

    private static PartState? Known(RemoteFile file, string path)
    {
        try
        {
            var state = JsonSerializer.Deserialize(File.ReadAllBytes(path + ".json"), PartStateJson.Default.PartState);
            return state?.Identity == Hash(file.Identity) && File.Exists(path) ? state : null;
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    private static void WriteState(string path, PartState state) =>
        AtomicFile.Write(path + ".json", JsonSerializer.SerializeToUtf8Bytes(state, PartStateJson.Default.PartState));

    private static void Forget(string path)
    {
        File.Delete(path);
        File.Delete(path + ".json");
    }

    private static long Length(string path) => new FileInfo(path) is { Exists: true } file ? file.Length : 0;
}
